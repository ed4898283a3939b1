"""What is paused: all events, those of a type, or a handler. Receiving goes on, and no attempt is used up.

Who works finds it out in the round trip that brings an event (work.lua). While everything is paused no event is
taken. A handler that is paused, be it by its name or by the type of the event, waits: the event is put aside for as
long, but looks again every now and then, and its other handlers go on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cache
from typing import Any

from redis import Redis

from app.inbox.scripts import PREFIX, RESUME

KEY = PREFIX + "paused"
EVERYTHING = "*"
AT_ONCE = 500
"""Waiting events that are looked through in one step when a pause ends: some 5 ms of the server's time."""

_STORED = re.compile(rb"(\d+) (\d+) (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause in force. Times are the server's, in seconds since 1970."""

    what: str
    """`*`, a pattern of event types, or the name of a handler. Of a destination, the name is its URL."""
    since: float
    until: float | None
    """None: until it is ended."""
    by: str


def reason(what: str) -> str:
    """What an event waits for, in its record: resume.lua finds it by that."""
    return f"paused: {what}"


def covering(paused: Mapping[str, float], handler: str, type: str) -> str | None:
    """Which of the pauses keeps a handler from an event of this type; of several the longest."""
    found = [what for what in paused if _covers(what, handler, type)]
    return max(found, key=lambda what: paused[what], default=None)


def _covers(what: str, handler: str, type: str) -> bool:
    return handler in {what, f"forward {what}"} or bool(_pattern(what).match(type.casefold()))


@cache
def _pattern(what: str) -> re.Pattern[str]:
    """As handlers name the events they want."""
    return re.compile(translate(what.casefold()))


def pause(redis: "Redis", what: str, seconds: float | None, by: str) -> Pause:
    """Pauses something, for so long or until it is ended. What is paused already is paused anew.

    Raises:
        RedisError: the server cannot be told.
    """
    now = _now(redis)
    made = Pause(what, now, None if seconds is None else now + seconds, by)
    until = 0 if made.until is None else round(made.until * 1000)
    redis.hset(KEY, what, f"{until} {round(now * 1000)} {by}")
    return made


def resume(redis: "Redis", what: str) -> int:
    """Ends a pause. Returns how many events were waiting for that; they go on at once.

    Raises:
        RedisError: the server cannot be told.
    """
    redis.hdel(KEY, what)
    if what == EVERYTHING:  # for that, events wait in line
        return 0
    woken = 0
    ids: list[Any] = []
    for id, _ in redis.zscan_iter(f"{PREFIX}retrying", count=AT_ONCE):
        ids.append(id)
        if len(ids) >= AT_ONCE:
            woken += _wake(redis, what, ids)
            ids = []
    return woken + (_wake(redis, what, ids) if ids else 0)


def in_force(redis: "Redis") -> list[Pause]:
    """All pauses, the oldest first.

    Raises:
        RedisError: the server cannot be asked.
    """
    raw: Any = redis.hgetall(KEY)
    return read(raw, _now(redis))


def read(stored: Any, now: float) -> list[Pause]:
    """The pauses in what is stored, without those that are over and what nobody has written so."""
    found = []
    for what, value in stored.items() if isinstance(stored, dict) else ():
        if match := _STORED.fullmatch(value):
            until = int(match[1]) / 1000 or None
            if until is None or until > now:
                by = match[3].decode("utf-8", "replace")
                found.append(Pause(what.decode("utf-8", "replace"), int(match[2]) / 1000, until, by))
    return sorted(found, key=lambda one: one.since)


def _wake(redis: "Redis", what: str, ids: list[Any]) -> int:
    woken: Any = redis.eval(RESUME.text, 0, reason(what), *ids)
    return int(woken)


def _now(redis: "Redis") -> float:
    seconds, microseconds = redis.time()
    return (int(seconds) * 1000 + int(microseconds) // 1000) / 1000
