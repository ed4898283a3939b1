"""What tests do with the inbox in the place of a worker, a supervisor and the clock."""

from dataclasses import replace
from typing import Any

from redis import Redis

from app.inbox.inbox import Inbox
from app.inbox.record import Ended, Outcome, Record, Tries

ATTEMPT = b'{"attempt":1,"started":1,"ended":2,"worker":"w","outcome":"done"}'


def ended(record: Record, outcome: Outcome = "done", delay: float = 0.0) -> Ended:
    return Ended(record.id, record.token, outcome, ATTEMPT, delay)


def take(inbox: Inbox, worker: str = "w") -> Record:
    record = inbox.work(worker).taken
    assert record
    return record


def sweep(inbox: Inbox) -> tuple[int, int, int, int]:
    """A sweep that is not put off."""
    inbox.redis.delete("jobhook:swept")
    swept = inbox.sweep()
    assert swept
    return swept.due, swept.expired, swept.lost, swept.trimmed


def age(inbox: Inbox, state: str, *ids: str) -> None:
    """As if whatever is waited for had come to pass."""
    for id in ids:
        assert inbox.redis.zadd(f"jobhook:{state}", {id: 1}, xx=True, ch=True)


def pass_time(inbox: Inbox, id: str, seconds: float) -> None:
    """As if so many seconds had passed for an event that waits to be tried again."""
    key = f"jobhook:event:{id}"
    raw: Any = inbox.redis.hgetall(key)
    for name, value in raw.items():
        if name.startswith(b"tries:"):
            tries = Tries.read(value)
            if tries.due is not None:
                inbox.redis.hset(key, name.decode(), replace(tries, due=tries.due - seconds).stored)
    for name in (b"since", b"held"):
        if int(raw.get(name, 0)):
            inbox.redis.hset(key, name.decode(), int(raw[name]) - round(seconds * 1000))
    inbox.redis.zincrby("jobhook:retrying", -seconds * 1000, id)


def calls(redis: "Redis", command: str) -> int:
    return int(redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])
