"""Finding events by a filter: all that fit, the newest first, whatever is gone through for it."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.filter import BadFilter, Filter
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Ended, Outcome
from app.inbox.search import Place, Search
from tests.support import former
from tests.support.deliveries import accept_all, received
from tests.support.frozen import thaw
from tests.support.inbox import age, ended, sweep, take
from tests.support.stack import make_settings

OF = "jobhook:of"
CASES: list[dict[str, Any]] = [
    {},
    {"state": "dead"},
    {"state": "queued,dead"},
    {"state": "done"},
    {"state": "running,queued,retrying"},
    {"type": "invoice.*"},
    {"type": "INVOICE.paid", "state": "dead"},
    {"type": "[ij]*.?aid"},
    {"resource": "invoice/r_1"},
    {"resource": "r_2"},
    {"resource": "invoice/r_1", "state": "dead,retrying"},
    {"error": "ValueError"},
    {"error": "*Error", "state": "retrying"},
    {"error": "app.[A-Z]*"},
    {"handler": "ledger"},
    {"unhandled": True},
    {"conflict": True},
    {"search": "Zoë"},
    {"search": "of a step"},
    {"search": "nowhere"},
    {"since": "1h"},
    {"until": "1h"},
    {"since": "0s"},
    {"type": "job.*", "since": "1h", "search": "street"},
]


def attempt(outcome: Outcome, error: str | None = None, handlers: int = 1) -> bytes:
    line: dict[str, Any] = {"attempt": 1, "started": 1, "ended": 2, "outcome": outcome, "handlers": handlers}
    if error:
        line["error"] = {"handler": "ledger", "type": error, "message": 'not "type":"this"', "traceback": "t"}
    return orjson.dumps(line)


def end(inbox: Inbox, id: str, outcome: Outcome, error: str | None = None, handlers: int = 1) -> None:
    record = inbox.work("w", want=id).taken
    assert record
    fields = {"step:mail / note": '"of a step"'} if error else {}
    line = attempt(outcome, error, handlers)
    inbox.work("", Ended(id, record.token, outcome, line, 3600.0, fields=fields, unhandled=not handlers), want="")


@pytest.fixture
def filled(inbox: Inbox, settings: Settings) -> Inbox:
    """Events of each kind in each state, several of them received in the same millisecond."""
    bodies = [
        orjson.dumps({"id": f"evt_{n}", "type": type, "data": {"id": f"r_{n % 4}", "street": "Zoë" if n % 5 else "x"}})
        for n, type in enumerate(["invoice.paid", "invoice.sent", "job.paid", "contact created"] * 8)
    ]
    bodies += [b"no JSON", b'{"id":"evt_1","type":"invoice.sent","data":{"id":"r_1","street":"another"}}']
    ids = [receipt.id for receipt in accept_all(settings, *map(received, bodies))]
    for n, id in enumerate(ids[:24]):
        outcome: Outcome = ("done", "dead", "retry")[n % 3]
        error = None if outcome == "done" else ("builtins.ValueError", "app.Gone", "KeyError")[n % 2 + (n % 7 == 0)]
        end(inbox, id, outcome, error, handlers=n % 2)
    take(inbox)
    return inbox


def brute(inbox: Inbox, filter: Filter) -> set[str]:
    keys: Any = inbox.redis.keys("jobhook:event:*")
    records = [inbox.get(key.decode().removeprefix("jobhook:event:")) for key in keys]
    now = Search(inbox.redis, Filter()).now
    return {record.id for record in records if filter.fits(record, now)}


def paged(inbox: Inbox, filter: Filter, most: int, most_looked: int | None = None) -> list[str]:
    """As somebody does who goes on from page to page, by the text of each place."""
    found, place = [], None
    while True:
        page = Search(inbox.redis, filter, place).page(most, most_looked)
        found += [record.id for record in page.records]
        assert len(page.records) <= most
        if page.place is None:
            return found
        place = Place.read(str(page.place))


@pytest.mark.parametrize("words", CASES, ids=str)
@pytest.mark.parametrize("indexed", [True, False], ids=["by what they are of", "by their states"])
def test_all_that_fit_are_found_each_once(filled: Inbox, words: dict[str, Any], indexed: bool) -> None:
    if not indexed:
        filled.redis.delete(OF)
    filter = Filter.of(words)
    found = [record.id for record in Search(filled.redis, filter)]
    assert sorted(found) == sorted(brute(filled, filter))
    assert paged(filled, filter, 3) == found
    assert paged(filled, filter, 50, most_looked=2) == found


def test_any_filter_finds_what_fits_it(filled: Inbox) -> None:
    @given(st.lists(st.sampled_from(CASES), min_size=1, max_size=3))
    def check(cases: list[dict[str, Any]]) -> None:
        words = {name: value for case in cases for name, value in case.items()}
        filter = Filter.of(words | ({"until": None} if "since" in words else {}))
        assert {record.id for record in Search(filled.redis, filter)} == brute(filled, filter)

    check()


def test_the_newest_come_first(filled: Inbox) -> None:
    for words in ({}, {"type": "invoice.*"}, {"error": "*"}, {"resource": "r_1"}):
        times = [record.received for record in Search(filled.redis, Filter.of(words))]
        assert times == sorted(times, reverse=True)
        assert len(times) > 3


def test_a_page_says_how_far_it_has_looked(filled: Inbox) -> None:
    page = Search(filled.redis, Filter.of({"search": "nowhere"})).page(50, 5)
    assert (page.records, page.looked) == ([], 5)
    assert page.place
    assert page.back_to
    whole = Search(filled.redis, Filter.of({"search": "nowhere"})).page()
    assert (whole.looked, whole.place) == (34, None)


def test_only_what_is_of_a_resource_is_looked_at_for_it(filled: Inbox) -> None:
    search = Search(filled.redis, Filter.of({"resource": "invoice/r_1"}))
    found = list(search)
    assert 5 < search.looked == len(found)


def test_few_of_a_state_are_found_without_looking_at_all(filled: Inbox) -> None:
    search = Search(filled.redis, Filter.of({"state": "running"}))
    assert [record.state for record in search] == ["running"]
    assert search.looked == 1


def test_a_call_ends_when_its_time_is_up(filled: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers wait meanwhile."""
    monkeypatch.setattr("app.inbox.search.CALL_MS", 0.0)
    search = Search(filled.redis, Filter())
    assert len(search.page(50, 20_000).records) == 34
    before = filled.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    list(Search(filled.redis, Filter.of({"search": "nowhere"})))
    assert filled.redis.info("commandstats")["cmdstat_evalsha"]["calls"] - before >= 2


def test_times_with_nothing_between_them_are_refused(redis: "Redis") -> None:
    with pytest.raises(BadFilter, match="not after since"):
        Search(redis, Filter.of({"since": "1h", "until": "2h"}))


# --- what earlier releases have recorded


def rounds(inbox: Inbox, most: int = 20) -> None:
    """Sweeps until all events can be found by what they are of."""
    for _ in range(most):
        sweep(inbox)
        if Search(inbox.redis, Filter())._by_time:
            return
    raise AssertionError("the sweep does not come to an end")


@pytest.mark.parametrize("words", [{}, {"type": "test.*"}, {"error": "*"}, {"state": "dead"}], ids=str)
def test_what_was_recorded_before_is_found_before_and_after_the_sweep_has_seen_it(
    redis: "Redis", inbox: Inbox, words: dict[str, Any]
) -> None:
    thaw(redis)
    filter = Filter.of(words)
    expected = brute(inbox, filter)
    assert expected
    assert {record.id for record in Search(redis, filter)} == expected
    assert not Search(redis, Filter())._by_time
    rounds(inbox)
    assert {record.id for record in Search(redis, filter)} == brute(inbox, filter)


def test_what_a_receiver_of_an_earlier_release_records_beside_us_is_found(
    redis: "Redis", inbox: Inbox, settings: Settings
) -> None:
    accept_all(settings, received(b'{"type":"job.done","n":1}'))
    assert Search(redis, Filter())._by_time
    receipt = former.accept(redis, settings, b'{"type":"job.done","n":2}')
    found = [record.id for record in Search(redis, Filter.of({"type": "test.ok"}))]
    assert found == [receipt.id]
    rounds(inbox)
    assert [record.id for record in Search(redis, Filter.of({"type": "test.ok"}))] == [receipt.id]


@pytest.mark.parametrize("uncounted", [True, False])
def test_whatever_ends_an_attempt_all_stays_found(
    redis: "Redis", inbox: Inbox, settings: Settings, uncounted: bool
) -> None:
    """Or each wait would have the sweep go through everything again."""
    accept_all(settings, *(received(b'{"type":"test.ok","n":%d}' % n) for n in range(3)))
    record = take(inbox)
    line = attempt("retry", "app.Gone")
    inbox.work("w", Ended(record.id, record.token, "retry", line, 3600.0, uncounted=uncounted), want="")
    take(inbox, "dies")
    inbox.release("dies", "It died.")
    take(inbox, "hangs")
    sweep(inbox)
    assert Search(redis, Filter())._by_time
    found = list(Search(redis, Filter.of({"error": "*"})))
    assert len(found) == (1 if uncounted else 2)


# --- what a person has spoiled


@pytest.mark.parametrize("key", [OF, f"{OF}:types", f"{OF}:type:test.ok", f"{OF}:resource:test/r", f"{OF}:late"])
def test_a_key_of_the_wrong_type_refuses_no_delivery_and_hides_no_event(
    redis: "Redis", inbox: Inbox, settings: Settings, key: str
) -> None:
    """P2, P8."""
    first, *_ = accept_all(settings, received(b'{"type":"test.ok","data":{"id":"r"},"n":1}'))
    redis.delete(key)
    redis.rpush(key, "a person's mistake")
    assert [record.id for record in Search(redis, Filter.of({"type": "test.ok"}))] == [first.id]
    second, *_ = accept_all(settings, received(b'{"type":"test.ok","data":{"id":"r"},"n":2}'))
    for _ in range(2):
        inbox.work("w", ended(take(inbox), "dead"), want="")
    inbox.replay([first.id])
    both = {first.id, second.id}
    assert {record.id for record in Search(redis, Filter.of({"resource": "test/r"}))} == both
    rounds(inbox)
    assert {record.id for record in Search(redis, Filter.of({"resource": "test/r"}))} == both
    assert redis.type(key) in {b"zset", b"hash", b"none"}


# --- bounds


def test_what_has_no_set_of_its_own_is_found_all_the_same(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    number = 205
    accept_all(settings, *(received(b'{"type":"t.%d"}' % n) for n in range(number)))
    assert redis.zcard(f"{OF}:types") == 200
    assert redis.zcard(f"{OF}:type:") == 5
    assert len(list(Search(redis, Filter.of({"type": "t.*"})))) == number
    for n in range(number):
        assert len(list(Search(redis, Filter.of({"type": f"t.{n}"})))) == 1


def rows(redis: "Redis", what: str = "*") -> list[bytes]:
    keys: Any = redis.keys(f"{OF}:{what}:*")
    return sorted(keys)


def test_rows_go_with_the_records(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    (receipt,) = accept_all(settings, received(b'{"type":"test.ok","data":{"id":"r"}}'))
    end(inbox, receipt.id, "dead", "builtins.ValueError")
    names = (b"error:builtins.ValueError", b"resource:test/r", b"type:test.ok")
    assert rows(redis) == [f"{OF}:".encode() + name for name in names]
    assert redis.ttl(f"{OF}:resource:test/r") == settings.retention * 1.25
    for key in (f"{OF}:type:test.ok", f"{OF}:error:builtins.ValueError"):
        redis.zadd(key, {receipt.id: 1})
    sweep(inbox)
    assert rows(redis) == [f"{OF}:resource:test/r".encode()]
    assert redis.zcard(f"{OF}:types") == redis.zcard(f"{OF}:errors") == 0


@pytest.mark.parametrize("put_back", ["", "open", "closed", "replayed"])
def test_an_event_that_outlives_its_rows_is_found(
    redis: "Redis", inbox: Inbox, settings: Settings, put_back: str
) -> None:
    """Open for weeks while all was paused, or put back to work at the end of its time."""
    (receipt,) = accept_all(settings, received(b'{"type":"test.ok","data":{"id":"r"}}'))
    long_ago = redis.time()[0] * 1000 - int(settings.retention * 1000)
    if put_back == "replayed":
        end(inbox, receipt.id, "dead", "builtins.ValueError")
        inbox.replay([receipt.id])
    redis.hset(f"jobhook:event:{receipt.id}", "received", long_ago)
    redis.zadd("jobhook:open", {receipt.id: long_ago})
    if put_back == "open":
        sweep(inbox)
    if put_back == "closed":
        end(inbox, receipt.id, "done")
    redis.delete(*rows(redis))
    words: tuple[dict[str, str], ...] = ({"type": "test.*"}, {"resource": "test/r"}, {})
    for found in ([record.id for record in Search(redis, Filter.of(one))] for one in words):
        assert found == ([receipt.id] if put_back else [])


def test_late_ones_are_forgotten_with_their_records(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    (receipt,) = accept_all(settings, received(b'{"type":"test.ok"}'))
    end(inbox, receipt.id, "dead")
    inbox.replay([receipt.id])
    end(inbox, receipt.id, "done")
    assert redis.zcard(f"{OF}:late") == 1
    assert redis.ttl(f"{OF}:late") > 0
    redis.delete(f"jobhook:event:{receipt.id}")
    age(inbox, "done", receipt.id)
    sweep(inbox)
    assert redis.zcard(f"{OF}:late") == 0


@pytest.mark.usefixtures("redis_7_0")
def test_where_scripts_have_no_clock_everything_is_found_all_the_same(own_server: EmbeddedServer) -> None:
    """P2: Redis 7.0 shows them none. The sweep, which makes findable what was recorded before, goes on too."""
    settings = make_settings(own_server.url)
    with connect(settings) as redis:
        former.accept(redis, settings, b'{"type":"job.done","n":1}')
        inbox = Inbox(redis, settings)
        bodies = [b'{"id":"evt_%d","type":"job.done","data":{"id":"r_%d"}}' % (n, n) for n in range(500)]
        accept_all(settings, *map(received, bodies))
        for is_swept in (False, True):
            if is_swept:
                rounds(inbox)
            assert len(list(Search(redis, Filter.of({"type": "job.*", "search": "evt_"})))) == len(bodies)
            assert len(list(Search(redis, Filter.of({"resource": "job/r_7"})))) == 1


def test_a_place_is_read_back_or_refused() -> None:
    place = Place(by_time=True, score=1795000000000.0, id="ab" * 16)
    assert Place.read(str(place)) == place
    for text in ("", "t:x:y", "t:1:../..", "q:1:ab"):
        with pytest.raises(ValueError, match="no place"):
            Place.read(text)
