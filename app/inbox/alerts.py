"""Where alerts are remembered, so that many supervisors tell one thing once.

One of them looks at a time: it has the turn. What it has found, what is still to be sent and what has been sent is kept
in one hash, by a script that keeps nothing of a supervisor whose turn is over. A turn ends by itself: should its holder
die, the next one finds what was to be sent, and sends it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from redis import Redis
from redis.exceptions import NoScriptError

from app.inbox.scripts import ALERTS, PREFIX

KEY: Final = f"{PREFIX}alerts"
KEPT_SECONDS: Final = 30 * 86400
"""How long all of it is kept while nobody looks."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to look, to send, and to keep what came of it."""

    token: str
    until: float
    """When it ends, by the monotonic clock of this machine."""


def begin(redis: "Redis", between: float, length: float) -> Turn | None:
    """A turn of so many seconds; None if somebody has one, or had one less than `between` seconds ago.

    Raises:
        RedisError: the server cannot be asked.
    """
    turn = Turn(uuid4().hex, time.monotonic() + length)  # counted from before it was asked for
    milliseconds = (round(between * 1000), round(length * 1000))
    return turn if _run(redis, "begin", turn.token, *milliseconds, KEPT_SECONDS) else None


def keep(
    redis: "Redis",
    turn: Turn,
    fields: Mapping[str, bytes | str],
    counters: Mapping[str, int] | None = None,
    *,
    ends: bool = False,
) -> bool:
    """Keeps fields (one without a value is removed) and counts; with `ends`, the turn is over then.

    False if it was over before: then nothing is kept.

    Raises:
        RedisError: the server cannot be told.
    """
    counted = {f"+{name}": str(number) for name, number in (counters or {}).items()}
    pairs = [part for field in {**fields, **counted}.items() for part in field]
    return bool(_run(redis, "keep", turn.token, "end" if ends else "", *pairs))


def kept(redis: "Redis") -> dict[str, bytes]:
    """All that is kept, by the names of the fields.

    Raises:
        RedisError: the server cannot be asked.
    """
    fields: Any = redis.hgetall(KEY)
    return {name.decode("utf-8", "replace"): value for name, value in fields.items()}


def _run(redis: "Redis", *arguments: Any) -> Any:
    try:
        return redis.evalsha(ALERTS.sha, 0, *arguments)
    except NoScriptError:
        return redis.eval(ALERTS.text, 0, *arguments)
