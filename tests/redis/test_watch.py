"""Whose turn it is to look for alerts, and what a look finds in a real inbox."""

from time import monotonic
from typing import Any

import orjson
import pytest
from redis import Redis

from app.config.keys import fingerprint
from app.config.settings import Settings
from app.inbox import alerts, dead
from app.inbox.dead import Cause, died_since
from app.inbox.inbox import Inbox
from app.inbox.keys import Use, tell
from app.inbox.paused import pause
from app.inbox.record import Record
from app.ops import watch
from app.ops.watch import read
from tests.support.deliveries import queue_events
from tests.support.inbox import take
from tests.support.sink import sink
from tests.support.stack import KEY, make_settings
from workers.processor import Processor
from workers.registry import Registry
from workers.retry import Permanent

TURN = 30.0


def now(redis: "Redis") -> float:
    seconds, microseconds = redis.time()
    return int(seconds) + int(microseconds) / 1e6


def die(inbox: Inbox, error: Exception | None = None, handler: str = "book", number: int = 1) -> list[str]:
    """Has events die in a handler."""

    def fail(_: object) -> None:
        raise error or Permanent("canary in the message")

    registry = Registry()
    registry.add(handler, fail, "*")
    ids = queue_events(inbox.settings, number, f"test.{inbox.redis.dbsize()}")
    for id in ids:
        record = inbox.work("w", want=id).taken
        assert record
        ended = Processor(inbox, registry).process(record)
        assert ended
        assert ended.outcome == "dead"
        inbox.work("w", ended, want="")
    return ids


def look(inbox: Inbox, url: str = "json://127.0.0.1:9/", **settings: Any) -> dict[str, str]:
    """Looks once, as if the last look were long ago. What is remembered, by its key."""
    inbox.redis.hdel(alerts.KEY, "looked", "turn")
    turn = alerts.begin(inbox.redis, 10, TURN)
    assert turn
    made = make_settings(inbox.settings.redis_url, alert_urls=url, **settings)
    watch.look(made, turn)
    return {key: alert.text for key, alert in read(inbox.redis).memory.alerts.items()}


# --- the turn


def test_one_of_many_has_the_turn(redis: "Redis") -> None:
    turns = [alerts.begin(redis, 0, TURN) for _ in range(10)]
    assert [turn is not None for turn in turns] == [True] + [False] * 9
    assert turns[0]
    assert alerts.keep(redis, turns[0], {"memory": "kept"}, ends=True)
    assert alerts.begin(redis, 10, TURN) is None  # it has just been looked
    assert alerts.begin(redis, 0, TURN)
    assert 0 < redis.ttl(alerts.KEY) <= alerts.KEPT_SECONDS


def test_a_turn_runs_out_and_its_holder_keeps_nothing_any_more(redis: "Redis") -> None:
    """P2: neither lost with the one who had it, nor told twice by one that was only frozen."""
    first = alerts.begin(redis, 0, TURN)
    assert first
    assert monotonic() < first.until <= monotonic() + TURN
    redis.hset(alerts.KEY, "turn", f"{first.token} {round(now(redis) * 1000) - 1}")
    second = alerts.begin(redis, 0, TURN)
    assert second
    assert not alerts.keep(redis, first, {"memory": "stale"}, {"alerts:sent": 1}, ends=True)
    assert alerts.kept(redis).keys() == {"turn", "looked"}
    assert redis.hget("jobhook:counts", "alerts:sent") is None
    assert alerts.keep(redis, second, {"memory": "kept", "post:1": "x"}, {"alerts:sent": 2})
    assert alerts.keep(redis, second, {"post:1": ""})
    assert alerts.kept(redis)["memory"] == b"kept"
    assert "post:1" not in alerts.kept(redis)
    assert redis.hget("jobhook:counts", "alerts:sent") == b"2"


@pytest.mark.parametrize("field", ["turn", "looked"])
def test_a_clock_set_back_stops_nobody(field: str, redis: "Redis") -> None:
    future = round(now(redis) * 1000) + 3_600_000
    redis.hset(alerts.KEY, field, f"other {future}" if field == "turn" else str(future))
    assert alerts.begin(redis, 10, TURN)


def test_a_key_of_a_wrong_type_is_put_right_by_the_sweep(inbox: Inbox) -> None:
    inbox.redis.set(alerts.KEY, "a person's hand")
    swept = inbox.sweep()
    assert swept
    assert swept.misfits == (alerts.KEY,)
    assert alerts.begin(inbox.redis, 10, TURN)
    inbox.redis.delete("jobhook:misfit:alerts")


@pytest.mark.parametrize("stored", [b"", b"{}", b"[]", b'{"alerts":{"a":{}},"told":0}', b"\xff"])
def test_what_cannot_be_read_counts_as_not_there(stored: bytes, redis: "Redis") -> None:
    redis.hset(alerts.KEY, mapping={"memory": stored, "post:1": stored, "taker:1": stored, "of a later version": "x"})
    kept = read(redis)
    assert (kept.memory.alerts, kept.posts, kept.takers, kept.cursor) == ({}, {}, {}, 0)


def test_what_a_later_version_has_added_is_left_out(inbox: Inbox) -> None:
    """P2: or a rolling upgrade would have everything told again."""
    inbox.redis.set("jobhook:swept", 1)
    look(inbox)
    stored = orjson.loads(inbox.redis.hget(alerts.KEY, "memory") or b"")
    stored["alerts"]["workers"]["of a later version"] = stored["of a later version"] = 1
    inbox.redis.hset(alerts.KEY, "memory", orjson.dumps(stored))
    kept = read(inbox.redis)
    assert (set(kept.memory.alerts), kept.cursor) == ({"workers"}, stored["cursor"])


# --- what has died


def test_the_dead_are_found_once_by_what_they_died_of(inbox: Inbox) -> None:
    """P7: an error's class, and not its message."""
    first = die(inbox, number=2)
    second = die(inbox, handler="thank")
    inbox.redis.zadd("jobhook:dead", {id: 5000 + n for n, id in enumerate([*first, *second])}, xx=True)
    found = died_since(inbox.redis, 0, now(inbox.redis))
    error = f"{Permanent.__module__}.Permanent"
    assert {cause: deaths.number for cause, deaths in found.groups.items()} == {
        Cause("book", error): 2,
        Cause("thank", error): 1,
    }
    assert found.groups[Cause("book", error)].last == first[1]
    assert found.left == 3
    assert "canary" not in repr(found)
    assert died_since(inbox.redis, found.until, now(inbox.redis)).groups == {}
    assert len(died_since(inbox.redis, 5000, now(inbox.redis)).groups) == 2  # one of each is left


def test_an_event_whose_worker_has_died_each_time_is_found(inbox: Inbox) -> None:
    (id,) = queue_events(inbox.settings, 1)
    inbox.settings = inbox.settings.model_copy(update={"max_attempts": 1})
    take(inbox, "crashing")
    inbox.release("crashing", "The worker died (SIGKILL).")
    inbox.redis.zadd("jobhook:dead", {id: 5000}, xx=True)
    assert list(died_since(inbox.redis, 0, now(inbox.redis)).groups) == [Cause("", "WorkerDied")]


def test_one_look_reads_so_many_and_counts_the_rest(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "MOST_LOOKED_AT", 3)
    inbox.redis.zadd("jobhook:dead", {f"{n:032}": 5000 for n in range(10)})  # all in one millisecond, records gone
    found = died_since(inbox.redis, 0, now(inbox.redis))
    assert (sum(deaths.number for deaths in found.groups.values()), found.unread, found.left) == (3, 7, 10)
    assert died_since(inbox.redis, found.until, now(inbox.redis)).unread == 0
    inbox.redis.delete("jobhook:dead")


def test_a_record_that_is_damaged_costs_nobody_the_rest(inbox: Inbox) -> None:
    (id,) = die(inbox)
    inbox.redis.zadd("jobhook:dead", {id: 5000, "gone": 4000, "odd": 4001}, xx=False)
    inbox.redis.set("jobhook:event:odd", "no hash", ex=60)
    found = died_since(inbox.redis, 0, now(inbox.redis))
    assert sorted(cause.handler for cause in found.groups) == ["", "book"]
    inbox.redis.zrem("jobhook:dead", "gone", "odd")


# --- a look


def test_a_look_tells_of_what_has_died_and_says_when_nothing_dead_is_left(inbox: Inbox) -> None:
    with sink() as taker:
        ids = die(inbox, number=3)
        found = look(inbox, taker.url())
        (key,) = [key for key in found if key.startswith("dead:book:")]
        assert read(inbox.redis).memory.alerts[key].times == 3
        assert ids[-1] in found[key] or any(id in found[key] for id in ids)
        (told,) = taker.taken
        assert "3 times" in told["message"]
        assert "canary" not in orjson.dumps(told).decode()
        assert read(inbox.redis).posts == {}
        inbox.redis.delete("jobhook:dead")
        stored = orjson.loads(inbox.redis.hget(alerts.KEY, "memory") or b"")
        inbox.redis.hset(alerts.KEY, "memory", orjson.dumps(stored | {"told": 0}))
        look(inbox, taker.url())
        assert taker.taken[-1]["title"].startswith("Jobhook: over: events have died in the handler book")
        assert taker.taken[-1]["type"] == "success"
        for id in ids:
            inbox.redis.delete(f"jobhook:event:{id}", f"jobhook:said:{id}")


def test_a_look_that_is_killed_before_it_has_sent_leaves_that_to_the_next(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2."""
    with sink() as taker:
        die(inbox)
        with monkeypatch.context() as patched:
            patched.setattr(watch, "_send", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                look(inbox, taker.url())
        assert len(read(inbox.redis).posts) == 1
        assert taker.asked == []
        look(inbox, taker.url())
        look(inbox, taker.url())
        assert len(taker.asked) == 1


def test_a_look_whose_turn_is_over_sends_nothing(inbox: Inbox) -> None:
    """P5: its successor does."""
    with sink() as taker:
        die(inbox)
        stale = alerts.begin(inbox.redis, 0, TURN)
        assert stale
        inbox.redis.hdel(alerts.KEY, "turn")
        assert alerts.begin(inbox.redis, 0, TURN)
        watch.look(make_settings(inbox.settings.redis_url, alert_urls=taker.url()), stale)
        assert taker.asked == []


def test_a_look_finds_what_stands_still(inbox: Inbox) -> None:
    (id,) = queue_events(inbox.settings, 1)
    inbox.redis.zadd("jobhook:queued", {id: (now(inbox.redis) - 3600) * 1000})
    inbox.redis.hset("jobhook:paused", "test.*", f"0 {round((now(inbox.redis) - 86400) * 1000)} cron")
    tell(inbox.redis, [Use(fingerprint(KEY.encode()), 1, 2 * 86400.0)])
    found = look(inbox)
    assert found["backlog"].startswith("events wait in line since ")
    assert "by cron: test.*" in found["paused:test.*"]
    assert found["silence"].startswith("no delivery has come since ")
    assert "last seen never" in found["workers"]


def test_of_a_suspension_is_told_by_its_own_name_only(inbox: Inbox) -> None:
    (id,) = queue_events(inbox.settings, 1)
    inbox.redis.zadd("jobhook:queued", {id: (now(inbox.redis) - 3600) * 1000})
    inbox.redis.set("rq:suspended", 1)
    look(inbox, alert_pauses="1h")
    alert = read(inbox.redis).memory.alerts["suspended"]
    assert (alert.told, alert.patience) == (None, 3600)
    assert "backlog" not in read(inbox.redis).memory.alerts


def test_a_pause_that_ends_by_itself_is_not_forgotten(inbox: Inbox) -> None:
    pause(inbox.redis, "test.*", 3600.0, "me")
    pause(inbox.redis, "other.*", None, "me")
    assert not [key for key in look(inbox) if key.startswith("paused")]


def test_a_receiver_looks_only_where_no_supervisor_does(inbox: Inbox) -> None:
    """P9: or nobody would tell that all supervisors are gone."""
    settings = make_settings(inbox.settings.redis_url, alert_urls="json://127.0.0.1:9/")
    inbox.sweep()
    watch.look_instead(settings, inbox.redis)
    assert not inbox.redis.exists(alerts.KEY)
    inbox.redis.set("jobhook:swept", round((now(inbox.redis) - watch.ALONE_SECONDS - 1) * 1000))
    watch.look_instead(settings, inbox.redis)
    assert "last seen 31 s ago" in read(inbox.redis).memory.alerts["workers"].text


def test_mere_waits_are_no_failures(inbox: Inbox) -> None:
    (id,) = queue_events(inbox.settings, 1)
    record: Record = take(inbox)
    pauses = {"test.ok": 60.0}
    registry = Registry()
    registry.add("book", lambda _: None, "*")
    ended = Processor(inbox, registry).process(record, pauses)
    assert ended
    inbox.work("w", ended, want="")
    counts = inbox.stats().counts
    assert (counts["attempts:wait"], counts.get("attempts:retry", 0)) == (1, 0)
    assert inbox.get(id).state == "retrying"


def test_a_taker_that_fails_is_said_by_the_doctor(inbox: Inbox, settings: Settings) -> None:
    """P9."""
    die(inbox)
    told = settings.model_copy(
        update={"alert_urls": make_settings(settings.redis_url, alert_urls="json://x").alert_urls}
    )
    with sink() as taker:
        taker.status = 500
        look(inbox, taker.url("canary-token"))
        (finding,) = watch.check(told, inbox.redis)
        assert (finding.name, finding.level) == ("alerts", "warn")
        assert "HTTP 500" in finding.finding
        assert "canary" not in repr(finding)
        (post,) = read(inbox.redis).posts.values()
        ((_, (tries, _)),) = post.left.items()
        assert tries == 1
    assert list(watch.check(settings, inbox.redis)) == []
