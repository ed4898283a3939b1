"""What is to be said of JobsiteOn's keys: how old the current one is, and whether the previous ones are still used.

The rule is JobsiteOn's ("API Security Best Practices"): a key is replaced every 90 days, with both valid for a while.
The age of a key is counted from when a receiver first had it: nothing tells when it was made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from app.config.keys import CURRENT, PREVIOUS, SigningKey, signing_keys
from app.config.reload import Reloader
from app.config.settings import Settings
from app.inbox.keys import Known, KnownKey, known
from app.ops import problems
from app.ops.problems import Check

DAY_SECONDS = 86400.0
OVERDUE_DAYS = 90
"""JobsiteOn's rule."""
DUE_DAYS = 80
"""From when on it is said: ten days to do it in."""
SILENT_SECONDS = 3600.0
"""How long a previous key has to be silent, while the current one verifies deliveries, to be called safe to revoke."""
HELD_SECONDS = 60.0
"""Receivers say four times in it which keys they hold. A key that none has named for so long is retired."""

SAFE = "safe to revoke"
RETIRED, ELSEWHERE = "retired", "elsewhere"


@dataclass(frozen=True, slots=True)
class Standing:
    """A key, and what is known of it. Times are in seconds since 1970."""

    name: str
    """`current`, `previous 1` and so on; `retired`, or `elsewhere` if only other receivers hold it."""
    fingerprint: str
    since: float | None
    """None if no receiver has said yet that it holds the key."""
    last: float | None
    today: int
    """Deliveries verified today (UTC)."""
    week: int
    """The same for today and the six days before."""
    days: dict[str, int]
    says: str


def standings(settings: Settings, redis: "Redis") -> list[Standing]:
    """The keys that are configured, then those that are only remembered, the newest first.

    Raises:
        RedisError: the server cannot be asked.
    """
    memory = known(redis)
    ours = signing_keys(settings)
    own = {key.fingerprint for key in ours}
    found = [_standing(key.name, key.fingerprint, memory, says(key, ours, memory)) for key in ours]
    for fingerprint, key in sorted(memory.keys.items(), key=lambda item: -item[1].held):
        if fingerprint not in own:
            name, what = _other(key, memory.now)
            found.append(_standing(name, fingerprint, memory, what))
    return found


def check(settings: Settings, redis: "Redis") -> Iterator[Check]:
    """What the operator has to do about the keys."""
    keys = signing_keys(settings)
    try:
        memory = known(redis)
    except RedisError:  # other findings say so
        memory = Known({}, 0.0)
    current = memory.keys.get(keys[0].fingerprint)
    if current and (days := int((memory.now - current.since) / DAY_SECONDS)) >= DUE_DAYS:
        problem = problems.OVERDUE_KEY if days >= OVERDUE_DAYS else problems.DUE_KEY
        yield problem.found(days=days, limit=OVERDUE_DAYS)
    for key in keys[1:]:
        verdict = says(key, keys, memory)
        problem = problems.UNUSED_KEY if verdict.endswith(SAFE) else problems.OLD_KEYS
        yield problem.found(key=key.name, says=verdict)


def reloading(reloader: Reloader) -> Iterator[Check]:
    """What this process has read of its settings since its start, and could not put into force."""
    if reloader.problem:
        yield problems.KEYS_NOT_RELOADED.found(problem=reloader.problem.replace("\n", "; "))
    if reloader.outdated:
        yield problems.OUTDATED_SETTINGS.found(names=", ".join(reloader.outdated))


class Measured(NamedTuple):
    """The keys of one role, for metrics. Durations are in seconds."""

    role: str
    age: float
    """Since the first of them became known."""
    unused: float
    """Since one of them last verified a delivery, or since it is known."""


def measure(settings: Settings, redis: "Redis") -> list[Measured]:
    """Age and use of the keys, for each role that there are keys of.

    Raises:
        RedisError: the server cannot be asked.
    """
    memory = known(redis)
    measured = []
    for role in (CURRENT, PREVIOUS):
        keys = [memory.keys.get(key.fingerprint) for key in signing_keys(settings) if key.role == role]
        if seen := [key for key in keys if key]:
            age = memory.now - min(key.since for key in seen)
            measured.append(Measured(role, age, memory.now - max(key.last or key.since for key in seen)))
    return measured


def says(key: SigningKey, keys: tuple[SigningKey, ...], memory: Known) -> str:
    """What the use of one of the configured keys comes to."""
    own, current = memory.keys.get(key.fingerprint), memory.keys.get(keys[0].fingerprint)
    if own is None:
        return "not seen at work yet"
    if key.name == CURRENT:
        days = int((memory.now - own.since) / DAY_SECONDS)
        due = f": to be replaced, every {OVERDUE_DAYS} days" if days >= DUE_DAYS else ""
        return f"{_days(days)} old{due}" if own.last else f"{_days(days)} old, has verified nothing yet"
    silent_since = own.last or own.since
    if current is None or not current.last or current.last <= silent_since:
        return f"last used {at(own.last)}, the current key has not taken over" if own.last else "never used"
    silent = memory.now - silent_since
    verdict = SAFE if silent >= SILENT_SECONDS else f"{SAFE} after {at(silent_since + SILENT_SECONDS)}"
    return f"silent since {at(silent_since)}: {verdict}"


def _standing(name: str, fingerprint: str, memory: Known, what: str) -> Standing:
    key = memory.keys.get(fingerprint)
    return Standing(
        name=name,
        fingerprint=fingerprint,
        since=key.since if key else None,
        last=key.last if key else None,
        today=memory.verified(fingerprint, 1),
        week=memory.verified(fingerprint, 7),
        days={day.isoformat(): number for day, number in sorted(key.days.items())} if key else {},
        says=what,
    )


def _other(key: KnownKey, now: float) -> tuple[str, str]:
    """What to call a key that is not configured here, and what to say of it."""
    if now - key.held < HELD_SECONDS:
        return ELSEWHERE, "not configured here, but a receiver had it less than a minute ago"
    return RETIRED, f"retired on {at(key.held)}"


def at(seconds: float | None) -> str:
    """A time in a sentence: UTC, to the second."""
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _days(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"
