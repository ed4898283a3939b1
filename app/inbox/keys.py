"""What is remembered of JobsiteOn's keys: since when each is known, when it last verified a delivery, how many by day.

Receivers count in memory and tell it here every now and then. Keys are named by their fingerprints
(`app/config/keys.py`). One that is configured no more stays known, so that it is recognised when somebody has it again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import NoScriptError

from app.inbox.scripts import KEYS, PREFIX

KEY = PREFIX + "keys"
DAYS = 30
"""For how long deliveries are counted by day."""
MOST_KEYS = 32
"""Keys that are remembered: at four a year, those of eight years."""

_EPOCH = date(1970, 1, 1)


class Use(NamedTuple):
    """What a receiver has verified with a key since it last said so."""

    fingerprint: str
    verified: int
    """Deliveries."""
    seconds_ago: float
    """Since the last of them."""
    is_held: bool = True
    """Whether it is still among the receiver's keys, and not only something of it to be told."""


@dataclass(slots=True)
class KnownKey:
    """What is remembered of a key. Times are the server's, in seconds since 1970."""

    since: float = 0.0
    held: float = 0.0
    """When a receiver last had it among its keys."""
    last: float | None = None
    """When it last verified a delivery; None if it has not."""
    days: dict[date, int] = field(default_factory=dict)
    """Deliveries that it has verified by day (UTC), of the last `DAYS`."""


class Known(NamedTuple):
    """All keys that are remembered, by fingerprint."""

    keys: dict[str, KnownKey]
    now: float
    """By the server's clock."""

    def verified(self, fingerprint: str, days: int) -> int:
        """Deliveries that a key has verified, today (UTC) and on the days before: so many in all."""
        first = day_of(self.now) - timedelta(days=days - 1)
        counted = self.keys[fingerprint].days if fingerprint in self.keys else {}
        return sum(number for day, number in counted.items() if day >= first)


def day_of(seconds: float) -> date:
    """The day (UTC) of a time."""
    return _EPOCH + timedelta(days=int(seconds // 86400))


def tell(redis: "Redis", uses: Sequence[Use]) -> list[float]:
    """Notes what a receiver has verified with its keys. Returns since when each of them is known.

    Raises:
        RedisError: the server cannot be told. What it has noted all the same is not known.
    """
    arguments: list[Any] = [DAYS, MOST_KEYS]
    for use in uses:
        arguments += [use.fingerprint, "1" if use.is_held else "", use.verified, int(use.seconds_ago * 1000)]
    try:
        since: Any = redis.evalsha(KEYS.sha, 0, *arguments)
    except NoScriptError:
        since = redis.eval(KEYS.text, 0, *arguments)
    return [milliseconds / 1000 for milliseconds in since]


def known(redis: "Redis") -> Known:
    """All that is remembered.

    Raises:
        RedisError: the server cannot be asked.
    """
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(KEY)
        pipeline.time()
        fields, (seconds, microseconds) = pipeline.execute()
    return Known(_read(fields.items()), seconds + microseconds / 1e6)


def _read(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, KnownKey]:
    keys: dict[str, KnownKey] = {}
    for name, value in fields:
        fingerprint, _, what = name.decode("utf-8", "replace").partition(":")
        kind, _, day = what.partition(":")
        if not value.isdigit():  # a person's hand
            continue
        key = keys.setdefault(fingerprint, KnownKey())
        if kind == "since":
            key.since = int(value) / 1000
        elif kind == "held":
            key.held = int(value) / 1000
        elif kind == "last":
            key.last = int(value) / 1000
        elif kind == "day" and day.isdecimal():
            key.days[_EPOCH + timedelta(days=int(day))] = int(value)
    return keys
