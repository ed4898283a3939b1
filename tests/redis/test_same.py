"""P4: a delivery that says the same as one before is no second event, whatever its bytes; and nothing else is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from app.config.settings import Settings
from app.delivery.envelope import Paths, Reader
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from app.receiver.intake import Receipt
from tests.support import former
from tests.support.deliveries import accept_all, identity, received
from tests.support.inbox import age, ended, sweep, take

CASES = Path(__file__).parents[1] / "cases" / "retries"
MOST_REWRITTEN = 16384

FIRST = b'{"id":"evt_1","type":"test.ok","data":{"n":1}}'
AGAIN = b'{"id": "evt_1", "type": "test.ok", "data": {"n": 1}, "attempt": 2}'
OTHER = b'{"id":"evt_1","type":"test.ok","data":{"n":2}}'
OTHER_AGAIN = b'{"attempt":2,"id":"evt_1","type":"test.ok","data":{"n":2}}'
BARE = b'{"status":"paid","invoice":"inv_1"}'
BARE_AGAIN = b'{"invoice": "inv_1", "status": "paid", "attempt": 2}'

Deliver = Callable[..., list[Receipt]]


@pytest.fixture
def deliver(redis: "Redis", settings: Settings) -> Deliver:
    def accept(*bodies: bytes, **overrides: object) -> list[Receipt]:
        return accept_all(settings.model_copy(update=overrides), *map(received, bodies))

    return accept


def only(inbox: Inbox) -> Record:
    (record,) = inbox.newest()
    return record


@pytest.mark.parametrize("first", sorted(CASES.glob("*-first.json")), ids=lambda file: file.stem)
def test_retries_written_anew(deliver: Deliver, first: Path) -> None:
    again = first.with_name(first.name.replace("first", "again"))
    receipts = deliver(first.read_bytes(), again.read_bytes())
    assert [receipt.status for receipt in receipts] == [
        "accepted",
        "conflict" if "conflict" in first.name else "duplicate",
    ]


@pytest.mark.parametrize("bodies", [(FIRST, AGAIN), (BARE, BARE_AGAIN)], ids=["event id", "no event id"])
def test_a_hundred_copies_in_two_spellings_are_one_event(
    deliver: Deliver, inbox: Inbox, bodies: tuple[bytes, ...]
) -> None:
    receipts = deliver(*bodies * 50)
    assert [receipt.status for receipt in receipts] == ["accepted"] + ["duplicate"] * 99
    assert len({receipt.id for receipt in receipts}) == 1
    assert (only(inbox).redelivered, only(inbox).rewritten) == (99, 50)
    assert inbox.stats().counts["deliveries:duplicate"] == 99


def test_a_conflict_written_anew_is_the_same_conflict(deliver: Deliver, inbox: Inbox) -> None:
    first, conflict, same_conflict = deliver(FIRST, OTHER, OTHER_AGAIN)
    assert (conflict.status, same_conflict.status) == ("conflict", "duplicate")
    assert first.id != conflict.id == same_conflict.id
    assert inbox.get(conflict.id).conflict_of == first.id


def test_a_redelivery_written_anew_revives_a_dead_event(deliver: Deliver, inbox: Inbox) -> None:
    deliver(FIRST)
    inbox.work("w", ended(take(inbox), "dead"), want="")
    assert deliver(AGAIN)[0].status == "revived"


@pytest.mark.parametrize("body", [AGAIN, BARE_AGAIN], ids=["event id", "no event id"])
def test_it_is_known_for_longer_than_its_record(deliver: Deliver, inbox: Inbox, body: bytes) -> None:
    (receipt,) = deliver(FIRST if body is AGAIN else BARE)
    inbox.work("w", ended(take(inbox)), want="")
    inbox.redis.delete(f"jobhook:event:{receipt.id}")
    assert deliver(body) == [Receipt("duplicate", receipt.id)]


@pytest.mark.parametrize("body", [AGAIN, OTHER])
def test_an_event_open_for_longer_than_the_window_is_known_by_what_it_says(
    deliver: Deliver, inbox: Inbox, body: bytes
) -> None:
    (receipt,) = deliver(FIRST)
    inbox.redis.delete(f"jobhook:said:{receipt.id}")
    assert [again.status for again in deliver(body, FIRST, AGAIN)] == [
        "duplicate" if body is AGAIN else "conflict",
        "duplicate",
        "duplicate",
    ]


# What is kept of a redelivery with other bytes


def test_the_last_other_body_is_kept(deliver: Deliver, inbox: Inbox) -> None:
    deliver(FIRST, FIRST)
    record = only(inbox)
    assert (record.redelivered, record.rewritten, record.rewritten_body, record.rewritten_size) == (1, 0, None, None)
    last = AGAIN.replace(b"2", b"3")
    deliver(AGAIN, last, FIRST)
    record = only(inbox)
    assert record.body == FIRST
    assert (record.redelivered, record.rewritten) == (4, 2)
    assert (record.rewritten_body, record.rewritten_size) == (last, len(last))


def test_an_other_body_that_is_large_is_not_kept(deliver: Deliver, inbox: Inbox) -> None:
    small, large = (FIRST + b" " * (size - len(FIRST)) for size in (MOST_REWRITTEN, MOST_REWRITTEN + 1))
    deliver(FIRST, small)
    assert only(inbox).rewritten_body == small
    deliver(large)
    assert (only(inbox).rewritten, only(inbox).rewritten_body, only(inbox).rewritten_size) == (2, None, len(large))


# An id that is trusted


def test_an_id_alone_can_be_trusted(deliver: Deliver, inbox: Inbox) -> None:
    receipts = deliver(FIRST, OTHER, AGAIN, same_id="duplicate")
    assert [receipt.status for receipt in receipts] == ["accepted", "duplicate", "duplicate"]
    assert only(inbox).rewritten == 2
    assert deliver(FIRST)[0].status == "duplicate"
    assert deliver(OTHER)[0].status == "conflict"


def test_without_an_event_id_there_is_nothing_to_trust(deliver: Deliver) -> None:
    receipts = deliver(BARE, BARE.replace(b"paid", b"sent"), same_id="duplicate")
    assert [receipt.status for receipt in receipts] == ["accepted", "accepted"]


# Releases before, which went by the bytes

NEWLY_READ = b'{"id":"evt_1","topic":"invoice.paid","data":{"n":1}}'
BODIES = {
    "event id": FIRST,
    "spaced": AGAIN,
    "no event id": BARE,
    "no event id, in the one form": b'{"invoice":"inv_1","status":"paid"}',
    "an event id that they did not find": NEWLY_READ,
    "no JSON": b"status=paid",
    "bytes decide": b'{"n":1,"n":1}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_event_of_a_release_before_is_known_by_its_bytes(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox, body: bytes
) -> None:
    accepted = former.accept(redis, settings, body)
    assert accepted.status == "accepted"
    assert deliver(body, body) == [Receipt("duplicate", accepted.id)] * 2
    assert only(inbox).redelivered == 2


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_event_of_a_release_before_is_known_for_longer_than_its_record(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox, body: bytes
) -> None:
    accepted = former.accept(redis, settings, body)
    inbox.work("w", ended(take(inbox)), want="")
    redis.delete(f"jobhook:event:{accepted.id}")
    assert deliver(body) == [Receipt("duplicate", accepted.id)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_dead_event_of_a_release_before_is_revived(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox, body: bytes
) -> None:
    accepted = former.accept(redis, settings, body)
    inbox.work("w", ended(take(inbox), "dead"), want="")
    assert deliver(body) == [Receipt("revived", accepted.id)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_dead_event_of_a_release_before_can_come_again_when_it_is_forgotten(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox, body: bytes
) -> None:
    """Neither its marker nor those of this release outlive its record."""
    id = former.accept(redis, settings, body).id
    deliver(body)
    inbox.work("w", ended(take(inbox), "dead"), want="")
    record = redis.ttl(f"jobhook:event:{id}")
    markers = [key for marker in ("said", "seen") for key in redis.scan_iter(f"jobhook:{marker}:*")]
    assert markers
    assert all(redis.ttl(key) <= record for key in markers)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_receivers_of_a_release_before_know_an_event_by_its_bytes(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox, body: bytes
) -> None:
    """While an upgrade is rolled out, the same delivery may arrive at both."""
    (accepted,) = deliver(body)
    assert former.accept(redis, settings, body).status == "duplicate"
    assert deliver(body) == [Receipt("duplicate", accepted.id)]
    inbox.work("w", ended(take(inbox)), want="")
    assert former.accept(redis, settings, body).status == "duplicate"
    assert only(inbox).state == "done"


def test_a_marker_that_outlives_a_dead_event_goes_with_the_sweep(
    deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox
) -> None:
    """Workers of a release before do not know this marker: it would swallow a redelivery after the retention."""
    (receipt,) = deliver(FIRST)
    inbox.work("w", ended(take(inbox), "dead"), want="")
    redis.expire(f"jobhook:said:{receipt.id}", int(settings.dedupe_window))
    redis.delete(f"jobhook:event:{receipt.id}")
    age(inbox, "dead", receipt.id)
    sweep(inbox)
    assert deliver(AGAIN) == [Receipt("accepted", receipt.id)]


def test_conflicts_are_the_same_in_both(deliver: Deliver, redis: "Redis", settings: Settings, inbox: Inbox) -> None:
    former.accept(redis, settings, FIRST)
    theirs = former.accept(redis, settings, OTHER)
    assert theirs.status == "conflict"
    assert deliver(OTHER, OTHER) == [Receipt("duplicate", theirs.id)] * 2
    (ours,) = deliver(other := OTHER.replace(b"2", b"3"))
    assert ours.status == "conflict"
    assert former.accept(redis, settings, other).status == "duplicate"
    assert len(list(inbox.newest())) == 3


def test_once_known_again_an_event_of_a_release_before_is_known_by_what_it_says(
    deliver: Deliver, redis: "Redis", settings: Settings
) -> None:
    accepted = former.accept(redis, settings, FIRST)
    assert deliver(FIRST, AGAIN, OTHER)[:2] == [Receipt("duplicate", accepted.id)] * 2


def test_markers_for_releases_before_are_few_and_expire_with_the_records(
    deliver: Deliver, redis: "Redis", settings: Settings
) -> None:
    deliver(FIRST, AGAIN, b'{"invoice":"inv_1","status":"paid"}', b"status=paid")
    assert list(redis.scan_iter("jobhook:seen:*")) == []
    deliver(BARE.replace(b"paid", b"sent"), OTHER)
    markers = list(redis.scan_iter("jobhook:seen:*"))
    assert len(markers) == 2
    assert all(0 < redis.ttl(key) <= settings.retention for key in markers)


def test_a_path_that_is_set_later_makes_no_second_event(redis: "Redis", settings: Settings, deliver: Deliver) -> None:
    """P10: what was recorded before is known by its bytes."""
    deliver(FIRST)
    made = received(FIRST)
    set_later = made._replace(identity=identity(FIRST, Reader(Paths(event_id="data.n"))))
    assert set_later.id != made.id
    assert accept_all(settings, set_later) == [Receipt("duplicate", made.id)]
