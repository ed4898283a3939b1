"""Keys and records that a person has deleted or spoiled: nothing is stranded for ever, and nobody dies of it (P2)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from app.config.settings import Settings
from app.errors import DamagedRecord
from app.inbox.inbox import PREFIX, SWEEP_SLICE, Inbox
from app.receiver.refusals import Unavailable
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import ended, sweep, take
from workers.processor import Processor
from workers.registry import Registry

INDEXES = ("open", "queued", "running", "retrying", "done", "dead")
SHARED = (*INDEXES, "broken", "job", "counts", "keys", "paused", "swept", "cursor", "wake")
LIST = "rq:queue:jobhook"
OF_ANOTHER_TYPE = "this is a person's mistake"


@pytest.fixture
def accept(settings: Settings) -> Callable[..., str]:
    """Records a delivery; the id it got."""

    def record(body: bytes = b"one") -> str:
        return accept_all(settings, delivery(body))[0].id

    return record


def key(id: str) -> str:
    return f"{PREFIX}event:{id}"


def spoil(redis: "Redis", key: str) -> None:
    """Puts something of another type there."""
    redis.delete(key)
    redis.hset(key, OF_ANOTHER_TYPE, 1) if key.endswith(("swept", "cursor")) else redis.set(key, OF_ANOTHER_TYPE)


def members(redis: "Redis", index: str) -> list[bytes]:
    return cast(list[bytes], redis.zrange(PREFIX + index, 0, -1))


def finish_everything(inbox: Inbox) -> None:
    for _ in range(4):
        sweep(inbox)
        for state in ("queued", "running", "retrying"):
            if ids := members(inbox.redis, state):
                inbox.redis.zadd(PREFIX + state, dict.fromkeys(ids, 1))  # whatever is waited for has come to pass
        while (assignment := inbox.work("last")).taken or assignment.damaged:
            if assignment.taken:
                inbox.work("last", ended(assignment.taken), want="")


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("damage", ["deleted", "spoiled"])
def test_an_index_that_is_deleted_or_spoiled_strands_nothing(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str], name: str, damage: str
) -> None:
    """P2: every event is done in the end, one in each state."""
    ids = [accept(b"%d" % n) for n in range(4)]
    inbox.work("w", ended(take(inbox)), want="")
    inbox.work("w", ended(take(inbox), "retry", delay=3600), want="")
    running = take(inbox, "gone")
    redis.delete(PREFIX + name) if damage == "deleted" else spoil(redis, PREFIX + name)
    finish_everything(inbox)
    assert running.id in ids
    assert {inbox.get(id).state for id in ids} == {"done"}
    assert redis.zcard(PREFIX + "open") == 0
    assert redis.type(PREFIX + name) in {b"zset", b"none"}


@pytest.mark.parametrize("name", [*SHARED, LIST])
def test_a_key_of_the_wrong_type_is_renamed_and_named(redis: "Redis", inbox: Inbox, name: str) -> None:
    target = name if name == LIST else PREFIX + name
    spoil(redis, target)
    swept = inbox.sweep()
    assert swept
    assert swept.misfits == (target,)
    kept = redis.keys(f"{PREFIX}misfit:*")
    assert len(kept) == 1
    assert redis.ttl(kept[0]) > 0
    again = inbox.sweep()
    assert again is None or again.misfits == ()


@pytest.mark.parametrize("name", ["open", "queued", "running", "retrying", "done", "dead", "wake", LIST])
def test_a_script_that_cannot_do_all_does_nothing(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str], name: str
) -> None:
    """P2: an event is never left half-way between two states."""
    first, second = accept(b"one"), accept(b"two")
    record = take(inbox)
    spoil(redis, name if name == LIST else PREFIX + name)
    before = {id: redis.hgetall(key(id)) for id in (first, second)}
    calls: list[Callable[[], Any]] = [lambda: inbox.work("w", ended(record)), lambda: inbox.work("w")]
    if name != "done":  # which a worker's death has nothing to do with
        calls.append(lambda: inbox.release("w", "It died."))
    for call in calls:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            call()
    assert {id: redis.hgetall(key(id)) for id in (first, second)} == before
    redis.delete(PREFIX + "done", PREFIX + "dead")


def test_a_delivery_is_refused_as_long_as_it_cannot_be_put_in_line(redis: "Redis", accept: Callable[..., str]) -> None:
    """P1, P6: nothing of it is recorded."""
    spoil(redis, LIST)
    with pytest.raises(Unavailable):
        accept()
    assert redis.keys(f"{PREFIX}event:*") == redis.keys(f"{PREFIX}said:*") == []


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
def test_an_event_in_no_index_is_found(redis: "Redis", inbox: Inbox, accept: Callable[..., str], state: str) -> None:
    """P2: whatever has put it there."""
    id = accept()
    if state != "queued":
        record = take(inbox)
        if state == "retrying":
            inbox.work("w", ended(record, "retry", delay=3600), want="")
    redis.zrem(PREFIX + state, id)
    redis.delete(LIST)
    redis.delete("jobhook:swept")
    swept = inbox.sweep()
    assert swept
    assert swept.mended == 1
    assert redis.zscore(PREFIX + state, id) or redis.zscore(PREFIX + "queued", id)
    finish_everything(inbox)
    assert inbox.get(id).state == "done"


def test_open_events_are_looked_at_in_bounded_portions(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    """P2: all in the end, however many there are."""
    number = 3 * SWEEP_SLICE
    ids = [receipt.id for receipt in accept_all(settings, *(delivery(b"%d" % n) for n in range(number)))]
    redis.delete(PREFIX + "queued")
    mended = []
    for _ in range(10):
        redis.delete("jobhook:swept")
        swept = inbox.sweep()
        assert swept
        mended.append(swept.mended)
    assert max(mended) < 2 * SWEEP_SLICE
    assert redis.zcard(PREFIX + "queued") == len(ids)


@pytest.mark.parametrize("state", ["queued", "running", "retrying"])
@pytest.mark.parametrize("damage", ["deleted", "state alone", "another type", "no body", "no JSON", "no number"])
def test_a_record_that_cannot_be_read_is_set_aside(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str], state: str, damage: str
) -> None:
    """P2: once, and for good; the others are not affected."""
    id = accept(b"spoiled")
    if state != "queued":
        record = take(inbox)
        if state == "retrying":
            inbox.work("w", ended(record, "retry", delay=3600), want="")
    other = accept(b"other")
    if damage in {"deleted", "state alone", "another type"}:
        redis.delete(key(id))
    if damage == "state alone":
        redis.hset(key(id), "state", state)
    elif damage == "another type":
        redis.set(key(id), "x")
    elif damage == "no body":
        redis.hdel(key(id), "body")
    elif damage == "no JSON":
        redis.hset(key(id), "meta", "{")
    elif damage == "no number":
        redis.hset(key(id), "received", "x")
    finish_everything(inbox)
    assert inbox.broken() == [id]
    assert not any(redis.zscore(PREFIX + index, id) for index in ("open", "queued", "running", "retrying"))
    assert redis.ttl(key(id)) != -1
    assert inbox.get(other).state == "done"
    assert redis.llen(LIST) == 0


def test_what_was_set_aside_is_recorded_anew_when_it_is_delivered_again(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P1: the sender has it still."""
    id = accept()
    redis.hdel(key(id), "meta")
    sweep(inbox)
    assert inbox.broken() == [id]
    assert accept() == id
    assert inbox.broken() == []
    assert inbox.stats().counts["deliveries:revived"] == 1
    inbox.work("w", ended(take(inbox)), want="")
    assert inbox.get(id).state == "done"


def test_a_damaged_record_is_one_kind_of_error_and_quotes_nothing(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P7."""
    id, other = accept(b"one"), accept(b"two")
    redis.hset(key(id), "received", "canary")
    with pytest.raises(DamagedRecord, match=f"{id} cannot be read: a field has a wrong value") as caught:
        inbox.get(id)
    assert "canary" not in str(caught.value)
    redis.hdel(key(id), "state")
    with pytest.raises(DamagedRecord, match="no field 'state'"):
        inbox.get(id)
    assert [record.id for record in inbox.newest()] == [other]
    redis.set(key(id), "x")
    with pytest.raises(DamagedRecord, match="not a hash"):
        inbox.get(id)
    assert [record.id for record in inbox.newest()] == [other]


def test_an_end_for_a_record_that_is_gone_is_not_recorded(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P2: the worker goes on with the next."""
    accept(b"one")
    next_ = accept(b"two")
    record = take(inbox)
    redis.set(key(record.id), "x")
    assert inbox.record_step(record.id, record.token, "step", b"1") is False
    assignment = inbox.work("w", ended(record))
    assert assignment.recorded is False
    assert assignment.taken
    assert assignment.taken.id == next_


def test_an_entry_of_an_index_that_has_no_business_there_goes(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """It would be put in line again for ever."""
    id = accept()
    inbox.work("w", ended(take(inbox)), want="")
    redis.zadd(PREFIX + "queued", {id: 1})
    redis.zadd(PREFIX + "retrying", {id: 1})
    sweep(inbox)
    assert redis.llen(LIST) == redis.zcard(PREFIX + "queued") == redis.zcard(PREFIX + "retrying") == 0
    assert inbox.get(id).state == "done"


def test_counters_that_cannot_be_counted_up_cut_no_script_in_two(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P2."""
    redis.hset(PREFIX + "counts", mapping={"attempts:done": "x", "events:done": "x", "deliveries:accepted": "x"})
    id = accept()
    assert inbox.work("w", ended(take(inbox)), want="").recorded
    assert inbox.get(id).state == "done"


def test_the_keys_of_a_turn_may_be_spoiled(redis: "Redis", inbox: Inbox, accept: Callable[..., str]) -> None:
    """P2: the turn is taken anew."""
    accept()
    record = take(inbox)
    redis.rpush(f"{PREFIX}turn:invoice/1", "x")
    redis.set(f"{PREFIX}line:invoice/1", "x")
    assert inbox.take_turn(record.id, record.token, "invoice/1")
    redis.set(f"{PREFIX}line:invoice/1", "x")
    assert inbox.work("w", ended(record), want="").recorded


def test_a_marker_or_record_of_another_type_is_replaced(redis: "Redis", accept: Callable[..., str]) -> None:
    """P1: the delivery is recorded."""
    id = delivery(b"one").id
    redis.rpush(f"{PREFIX}said:{id}", "x")
    redis.set(key(id), "x")
    assert accept() == id
    assert redis.hget(key(id), "body") == b"one"


def test_a_turn_that_cannot_be_asked_for_is_a_failed_attempt(
    redis: "Redis", inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P2: and no reason for a worker to die."""
    registry = Registry()
    registry.add("serial", lambda event: None, "*", one_at_a_time=True)
    id = accept()
    record = replace(take(inbox), meta={"type": "job.updated", "resource": "1"})
    spoil(redis, PREFIX + "retrying")
    attempt = Processor(inbox, registry).process(record)
    assert attempt
    assert attempt.outcome == "retry"
    sweep(inbox)
    assert inbox.work("w", attempt, want="").recorded
    assert inbox.get(id).state == "retrying"
