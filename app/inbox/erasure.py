"""Takes out for good what events say: of dead ones that nobody wants to try again, or of all that is about a person.

What stays of an event is a line: its id, type, resource and times, what became of it, and the marker by which a
redelivery is known. If the text that is searched for is in its ids, they go too.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
from redis import Redis
from redis.exceptions import ResponseError

from app.inbox.filter import Filter, spellings
from app.inbox.inbox import PREFIX, Inbox
from app.inbox.rejected import KEY as REJECTED
from app.inbox.rejected import PAGE, RejectedDeliveries

SCANNED: Final = 1000
"""Keys looked at in one step: less than a millisecond of the server's time."""
_KEPT: Final = ("type", "event_id", "resource", "occurred_at", "key", "fingerprint")
_OF_A_RESOURCE: Final = ("handled", "latest", "turn", "line", "of:resource", "api:generation")


def discard(inbox: Inbox, ids: Sequence[str]) -> dict[str, str]:
    """Ends dead events for good. Returns the state each was in; others than dead are left alone."""
    return inbox.empty("discard", _metas(inbox.redis, ids, []))


def erase(inbox: Inbox, ids: Sequence[str], chosen: Filter) -> dict[str, str]:
    """Erases events. Returns the state each was in; running ones are left alone."""
    texts = spellings(chosen.search) if chosen.search else []
    return inbox.empty("erase", _metas(inbox.redis, ids, texts))


def erase_beside(redis: "Redis", chosen: Filter) -> dict[str, int]:
    """Erases what is kept beside the events and mentions what a filter names: rejected deliveries, answers of the API,
    what is left of broken records, keys named by a resource. Returns how many of each.

    All cached answers go: each lives for an hour at most, and is asked for again.
    """
    mentions = _mentions(chosen)
    if mentions is None:
        return {}
    counts = {"rejected deliveries": _rejected(redis, mentions), "broken records": _broken(redis, mentions)}
    counts["answers of the API"] = _answers(redis, mentions)
    if chosen.search:
        counts["keys named by it"] = _named(redis, mentions)
    return counts


def _mentions(chosen: Filter) -> "re.Pattern[bytes] | None":
    """What is to be gone: the text searched for, or the id of the resource as a word of its own."""
    if chosen.search:
        return re.compile(b"|".join(map(re.escape, spellings(chosen.search))))
    if chosen.resource:
        id = chosen.resource.partition("/")[2] or chosen.resource
        return re.compile(rb"(?<![\w-])(?:%s)(?![\w-])" % b"|".join(map(re.escape, spellings(id))))
    return None


def _metas(redis: "Redis", ids: Sequence[str], texts: list[bytes]) -> list[tuple[str, bytes]]:
    """What stays of the meta of each event: no headers, no address, and no ids that hold one of the texts."""
    with redis.pipeline(transaction=False) as pipeline:
        for id in ids:
            pipeline.hget(f"{PREFIX}event:{id}", "meta")
        metas = pipeline.execute(raise_on_error=False)
    return [(id, _kept(raw, texts)) for id, raw in zip(ids, metas, strict=True)]


def _kept(raw: Any, texts: list[bytes]) -> bytes:
    try:
        meta = orjson.loads(raw)
    except (ValueError, TypeError):
        meta = {"type": "unknown"}
    kept = {name: meta[name] for name in _KEPT if meta.get(name) is not None}
    for name in ("event_id", "resource"):
        if name in kept and any(text in orjson.dumps(kept[name]) for text in texts):
            del kept[name]
    return orjson.dumps(kept)


def _rejected(redis: "Redis", mentions: "re.Pattern[bytes]") -> int:
    gone = 0
    end = "+"
    while True:
        page: Any = redis.xrevrange(REJECTED, end, "-", count=PAGE)
        if not page:
            return gone
        ids = [id.decode() for id, fields in page if any(map(mentions.search, fields.values()))]
        RejectedDeliveries(redis).remove(ids)
        gone += len(ids)
        end = f"({page[-1][0].decode()}"


def _broken(redis: "Redis", mentions: "re.Pattern[bytes]") -> int:
    """What is left of records that cannot be read."""
    ids: Any = redis.zrange(f"{PREFIX}broken", 0, -1)
    gone = 0
    for id in ids:
        key = f"{PREFIX}event:{id.decode()}"
        with suppress(ResponseError):
            raw: Any = redis.hgetall(key)
            if any(map(mentions.search, (*raw, *raw.values()))):
                gone += redis.delete(key)
    return gone


def _answers(redis: "Redis", mentions: "re.Pattern[bytes]") -> int:
    """Answers that are cached, and those kept for a handler that its rate limit has cut short."""
    gone = 0
    for keys in _scan(redis, f"{PREFIX}api:cache:*"):
        gone += redis.delete(*keys)
    for keys in _scan(redis, f"{PREFIX}answers:*"):
        for key in keys:
            stored: Any = redis.hgetall(key)
            for handler, packed in stored.items():
                if mentions.search(_unpacked(packed)):
                    gone += redis.hdel(key, handler)
    return gone


def _named(redis: "Redis", mentions: "re.Pattern[bytes]") -> int:
    """Keys that are named by a resource whose id is, or holds, the text."""
    gone = 0
    for name in _OF_A_RESOURCE:
        for keys in _scan(redis, f"{PREFIX}{name}:*"):
            if named := [key for key in keys if mentions.search(key)]:
                gone += redis.delete(*named)
    return gone


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompress(packed)
    except zlib.error:
        return packed


def _scan(redis: "Redis", pattern: str) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        reply: Any = redis.scan(cursor, match=pattern, count=SCANNED)
        cursor, keys = reply
        if keys:
            yield keys
        if not cursor:
            return
