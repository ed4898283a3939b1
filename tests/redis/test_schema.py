"""What is stored has a version; and what earlier versions have stored goes on being worked off."""

import pytest
from redis import Redis

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import Inbox
from app.inbox.schema import claim
from tests.support.deliveries import accept_all, delivery
from tests.support.frozen import thaw
from tests.support.inbox import age, ended, sweep


def test_whoever_comes_first_sets_the_version(redis: "Redis") -> None:
    claim(redis)
    assert redis.get("jobhook:schema") == b"1"
    claim(redis)


@pytest.mark.parametrize(
    ("stored", "remedy"), [("2", "upgrade this process"), ("0", "upgrade the records"), ("one", "something else")]
)
def test_a_version_that_is_not_known_is_refused_and_left_alone(redis: "Redis", stored: str, remedy: str) -> None:
    redis.set("jobhook:schema", stored)
    with pytest.raises(ConfigError, match=remedy) as raised:
        claim(redis)
    assert "\n" not in str(raised.value)
    assert redis.get("jobhook:schema") == stored.encode()


def test_records_from_before_are_read(redis: "Redis", inbox: Inbox) -> None:
    ids = thaw(redis)
    states = {name: inbox.get(id).state for name, id in ids.items()}
    assert states == {
        "done": "done",
        "dead": "dead",
        "retrying": "retrying",
        "conflicted": "done",
        "conflict": "queued",
        "turn-holder": "running",
        "running": "running",
        "in-line": "retrying",
        "queued": "queued",
        "queued-bytes": "queued",
    }
    assert inbox.get(ids["conflict"]).conflict_of == ids["conflicted"]
    assert inbox.get(ids["done"]).redelivered == 1
    assert inbox.get(ids["dead"]).steps == (("tests.support.handlers.ok / first", "kept"),)
    assert {record.id for record in inbox.newest()} == set(ids.values())


def test_redeliveries_of_records_from_before_are_recognised(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    """P4: byte by byte, as their senders repeat them."""
    ids = thaw(redis)
    for name in ("done", "retrying", "conflicted", "queued-bytes"):
        body = inbox.get(ids[name]).body
        event_id = inbox.get(ids[name]).meta["event_id"]
        (receipt,) = accept_all(settings, delivery(body, event_id))
        assert (receipt.status, receipt.id) == ("duplicate", ids[name]), name


def test_everything_from_before_comes_to_its_end(redis: "Redis", inbox: Inbox) -> None:
    """P2: whatever state it was left in."""
    ids = thaw(redis)
    unfinished = {id for id in ids.values() if inbox.get(id).state not in {"done", "dead"}}
    for state in ("running", "retrying"):
        age(inbox, state, *(id for id in unfinished if inbox.get(id).state == state))
    _, expired, _, _ = sweep(inbox)
    assert expired == 1  # who had the turn; its end passes the turn on
    age(inbox, "retrying", *(id for id in unfinished if inbox.get(id).state == "retrying"))
    sweep(inbox)
    taken = set()
    while record := inbox.work("new-worker").taken:
        taken.add(record.id)
        inbox.work("", ended(record), want="")
    assert taken == unfinished
    assert inbox.redis.zcard("jobhook:open") == 0
