"""Who has changed what, by hand: one entry for each command that did. The last ten thousand are kept.

An entry has no payload. Of a filter it has the words, but never the text that was searched for: it may be a name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from redis import Redis

from app.inbox.filter import Filter
from app.inbox.scripts import PREFIX

KEY: Final = f"{PREFIX}audit"
MOST: Final = 10_000
"""Entries: some 2 MB."""
PAGE: Final = 500
LONGEST: Final = 300
"""Characters of each part."""
WITHHELD: Final = "(withheld)"


@dataclass(frozen=True, slots=True)
class Entry:
    """One of them."""

    id: str
    at: float
    """By the server's clock, in seconds since 1970."""
    who: str
    """User and machine."""
    what: str
    """The command."""
    which: str
    """What it was to change: the words of a filter, ids, what is paused."""
    count: int
    """How much it has changed."""
    note: str = ""


def note(redis: "Redis", who: str, what: str, which: str, count: int, note: str = "") -> None:
    """Writes an entry.

    Raises:
        RedisError: it cannot be written.
    """
    parts: dict[Any, Any] = {"who": who, "what": what, "which": which, "note": note}
    shown = {name: value[:LONGEST].encode("utf-8", "replace") for name, value in parts.items()}
    redis.xadd(KEY, {**shown, "count": count}, maxlen=MOST, approximate=True)


def entries(redis: "Redis") -> Iterator[Entry]:
    """From the newest back, lazily."""
    end = "+"
    while page := _page(redis, end):
        for id, fields in page:
            yield _read(id, fields)
        end = f"({page[-1][0].decode()}"


def in_words(filter: Filter) -> str:
    """A filter for people and for the trail, without the text searched for."""
    return str(replace(filter, search=WITHHELD) if filter.search else filter)


def _page(redis: "Redis", end: str) -> list[Any]:
    page: Any = redis.xrevrange(KEY, end, "-", count=PAGE)
    return list(page)


def _read(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    count = fields.get(b"count", b"0")
    return Entry(
        id=id.decode(),
        at=int(id.partition(b"-")[0]) / 1000,
        who=text(b"who"),
        what=text(b"what"),
        which=text(b"which"),
        count=int(count) if count.isdigit() else 0,
        note=text(b"note"),
    )
