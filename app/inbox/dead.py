"""The events that have died since somebody last looked: what they died of, in groups."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from redis import Redis

from app.inbox.scripts import PREFIX

MOST_LOOKED_AT: Final = 500
"""Dead events whose records one look reads, the oldest first. Of what is more the number is told."""
PAGE: Final = 100
LONGEST_NAME: Final = 200


class Cause(NamedTuple):
    """What an event has died of."""

    handler: str
    """Empty if it is not known, as where the process has died."""
    error: str
    """The class of the error, with its module. Never its message, which may quote a payload."""


@dataclass(slots=True)
class Deaths:
    """The events that have died of one cause."""

    number: int
    last: str
    """The id of the last of them."""
    type: str
    """Its type."""


@dataclass(slots=True)
class Died:
    """What a look has found."""

    until: int
    """Up to when it has looked, by the server's clock in ms: where the next one begins."""
    groups: dict[Cause, Deaths] = field(default_factory=dict)
    unread: int = 0
    """Events that have died beside those, which were too many to look at."""
    left: int = 0
    """Dead events that there are now, old ones included."""


def died_since(redis: "Redis", since: int, now: float) -> Died:
    """The events that died after `since`, which is the `until` of the look before, or 0. `now` is the server's time.

    An event that has several handlers which have given up belongs to several groups.

    Raises:
        RedisError: the server cannot be asked.
    """
    died = Died(until=round(now * 1000) - 1)  # in this millisecond others may still die
    index: Any = redis
    dead, after, until = f"{PREFIX}dead", f"({since}", str(died.until)
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.zrange(dead, after, until, byscore=True, offset=0, num=MOST_LOOKED_AT)
        pipeline.zcard(dead)
        ids, died.left = pipeline.execute()
    if len(ids) == MOST_LOOKED_AT:
        died.unread = max(0, index.zcount(dead, after, until) - MOST_LOOKED_AT)
    for start in range(0, len(ids), PAGE):
        for id, type, causes in _read(redis, ids[start : start + PAGE]):
            for cause in causes:
                deaths = died.groups.setdefault(cause, Deaths(0, id, type))
                deaths.number, deaths.last, deaths.type = deaths.number + 1, id, type
    return died


def _read(redis: "Redis", ids: list[bytes]) -> Iterator[tuple[str, str, set[Cause]]]:
    """Id, type and causes of each; without the body, which may be large."""
    keys = [f"{PREFIX}event:{id.decode()}" for id in ids]
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, "token", "meta")
        heads = pipeline.execute(raise_on_error=False)
        for key, head in zip(keys, heads, strict=True):
            token = head[0] if isinstance(head, list) and head[0] else b"0"
            pipeline.hget(key, f"attempt:{token.decode('ascii', 'replace')}")
        lines = pipeline.execute(raise_on_error=False)
    for id, head, line in zip(ids, heads, lines, strict=True):
        meta = _json(head[1] if isinstance(head, list) else None)
        yield id.decode(), str(meta.get("type", "unknown"))[:LONGEST_NAME], _causes(_json(line))


def _causes(attempt: dict[str, Any]) -> set[Cause]:
    """Of the last attempt's line in the event's history (workers/history.py, and `crash` in common.lua)."""
    first = attempt.get("error")
    errors = [error for error in (attempt.get("errors") or [first]) if isinstance(error, dict)]
    final = [error for error in errors if error.get("given_up")] or errors
    return {Cause(_name(error.get("handler")), _name(error.get("type")) or "unknown") for error in final} or {
        Cause("", "unknown")
    }


def _name(value: Any) -> str:
    return "".join(c for c in str(value or "")[:LONGEST_NAME] if c.isprintable())


def _json(raw: Any) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except (ValueError, TypeError):  # it is gone, or a person's hand
        return {}
    return value if isinstance(value, dict) else {}
