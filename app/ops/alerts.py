"""What is told of findings, and when. Pure: it is given what has been found, and what is remembered.

    found ──patience──▶ told ──a day──▶ told again, with all others that are still there
                          │
                          └──not found for a while──▶ told that it is over

What has to last is not told before it has lasted; what comes back after it was over has to stay away for longer each
time, up to an hour. What is new within a minute of the last message is told together, in the next one.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

QUIET_SECONDS = 60.0
"""For how long something is not found any more before it is over."""
LONGEST_QUIET_SECONDS = 3600.0
"""The same for what comes back again and again."""
REMIND_SECONDS = 86400.0
GATHER_SECONDS = 60.0
"""Between two messages; what comes meanwhile is told together."""
FORGET_SECONDS = 86400.0
"""For how long it is remembered of something that is over how often it has come back."""
MOST_ALERTS = 100
"""Things that are remembered; what is more is not told of each by itself."""
MOST_LINES = 20
"""Things that one message names."""
LONGEST_TITLE = 100
"""Characters of what the title quotes."""

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong now."""

    key: str
    """What it is, the same each time that it is found. What it is about begins it, up to a colon."""
    text: str
    remedy: str
    level: Level = "warn"
    patience: float = 0.0
    """How long it has to last before it is told, in seconds."""
    quiet: float = QUIET_SECONDS
    """How long it has to be away before it is over, in seconds."""
    stage: str = ""
    """When this changes, it is told as if it were new: it has become worse, say."""
    times: int = 0
    """For what happens, instead of being so: how often since the last look."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What is remembered of a finding. Times are the server's, in seconds since 1970."""

    text: str
    remedy: str
    level: Level
    since: float
    seen: float
    patience: float
    quiet: float
    stage: str = ""
    times: int = 0
    told: float | None = None
    """When it was last told of; None if it was not."""
    over: float | None = None
    """When it was told that it is over; None if it is not."""
    returns: int = 0
    """How often it has come back after that, within a day each time."""

    @property
    def is_active(self) -> bool:
        """Whether it has been told and is not over."""
        return self.told is not None and self.over is None

    @property
    def has_happened(self) -> bool:
        """Whether it is something that happens: it has to be told though it is not found a second time."""
        return self.times > 0

    @property
    def is_to_be_kept(self) -> bool:
        """Whether anything is still to be told of it when it is not found any more."""
        return self.told is not None or self.has_happened


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is remembered from one look to the next."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    told: float = 0.0
    """When the last message was made."""

    @classmethod
    def read(cls, stored: dict[str, Any]) -> "Memory":
        """From the form that `stored` has. What a later version has added is left out.

        Raises:
            ValueError, TypeError, LookupError: it has another form.
        """
        alerts = {key: Alert(**known_fields(Alert, value)) for key, value in stored["alerts"].items()}
        return cls(alerts, float(stored["told"]))

    @property
    def stored(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told, in words."""

    title: str
    body: str
    level: Level
    """That of the worst that is new in it; `ok` if something is over, and nothing is new."""


def advance(
    memory: Memory,
    findings: Iterable[Finding],
    now: float,
    *,
    is_complete: bool = True,
    ended: Collection[str] = (),
    teller: str = "",
) -> tuple[Memory, Message | None]:
    """What is remembered after a look, and what there is to tell, if anything.

    With `is_complete` false, what is not found may be there all the same: nothing is over then. `ended` says about what
    nothing more is to be expected, so that it is over at once. `teller` says in the message who has looked.
    """
    found = {finding.key: finding for finding in _most_important(findings)}
    alerts = {key: _renewed(memory.alerts.get(key), finding, now) for key, finding in found.items()}
    alerts |= {
        key: alert
        for key, alert in memory.alerts.items()
        if key not in found and (alert.is_to_be_kept or not is_complete) and not _is_forgotten(alert, now)
    }
    alerts = _bounded(alerts)
    if 0 <= now - memory.told < GATHER_SECONDS:
        return Memory(alerts, memory.told), None
    new = [key for key, alert in alerts.items() if _is_news(alert, now) and (key in found or alert.has_happened)]
    absent = alerts.keys() - found.keys() if is_complete else set()
    over = [key for key in alerts if key in absent and _is_over(key, alerts[key], now, ended)]
    still = _to_remind_of(alerts, {*over, *new}, now)
    if not (over or new or still):
        return Memory(alerts, memory.told), None
    message = _message(*({key: alerts[key] for key in keys} for keys in (new, still, over)), teller=teller)
    alerts |= {key: replace(alerts[key], told=now) for key in (*new, *still)}
    alerts |= {key: replace(alerts[key], over=now) for key in over}
    return Memory(alerts, now), message


def at(seconds: float) -> str:
    """A time in a message: UTC, to the minute."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _most_important(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: finding.level != "fail")[:MOST_ALERTS]


def _renewed(before: Alert | None, finding: Finding, now: float) -> Alert:
    """What is remembered of what has just been found."""
    said: dict[str, Any] = {
        name: getattr(finding, name) for name in ("text", "remedy", "level", "patience", "quiet", "stage")
    }
    if before is None:
        return Alert(**said, since=now, seen=now, times=finding.times)
    if before.over is not None:
        return Alert(**said, since=now, seen=now, times=finding.times, returns=before.returns + 1)
    told = before.told if before.stage == finding.stage else None
    return replace(before, **said, seen=now, told=told, times=before.times + finding.times)


def _is_forgotten(alert: Alert, now: float) -> bool:
    return alert.over is not None and now - alert.over >= FORGET_SECONDS


def _bounded(alerts: dict[str, Alert]) -> dict[str, Alert]:
    """At most `MOST_ALERTS`: what was seen last, and of that first what is not over."""
    by_use = sorted(alerts.items(), key=lambda item: (item[1].over is not None, -item[1].seen))
    return dict(by_use[:MOST_ALERTS])


def _is_news(alert: Alert, now: float) -> bool:
    """Whether it has not been told, and has lasted long enough for that."""
    return alert.told is None and now - alert.since >= alert.patience


def _is_over(key: str, alert: Alert, now: float, ended: Collection[str]) -> bool:
    if not alert.is_active:
        return False
    if key.partition(":")[0] in ended:
        return True
    longer = min(QUIET_SECONDS * 2.0 ** min(alert.returns, 10), LONGEST_QUIET_SECONDS)
    return now - alert.seen >= max(alert.quiet, longer)


def _to_remind_of(alerts: dict[str, Alert], but: set[str], now: float) -> list[str]:
    """All that is still there, as soon as one of them was told a day ago: so there is one reminder a day."""
    ages = {key: now - (alert.told or 0.0) for key, alert in alerts.items() if alert.is_active and key not in but}
    if not any(age >= REMIND_SECONDS for age in ages.values()):
        return []
    return [key for key, age in ages.items() if age >= REMIND_SECONDS / 2]


def _message(new: dict[str, Alert], still: dict[str, Alert], over: dict[str, Alert], *, teller: str) -> Message:
    level: Level = "warn"
    if not (new or still):
        level = "ok"
    elif any(alert.level == "fail" for alert in new.values()):
        level = "fail"
    lead = next(iter((new or still or over).values()))
    others = len(new or still or over) - 1
    kind = "" if new else "still: " if still else "over: "
    title = f"Jobhook: {kind}{_shortened(lead.text)}" + (f", and {others} more" if others else "")
    blocks = [_told(alert) + f"\nTo do: {alert.remedy}." for alert in _shown(new)]
    blocks += [f"Still: {_told(alert)}\nTo do: {alert.remedy}." for alert in _shown(still)]
    blocks += [f"Over: {_told(alert)}" for alert in _shown(over)]
    if left := sum(max(0, len(part) - MOST_LINES) for part in (new, still, over)):
        blocks.append(f"And {left} more.")
    blocks.append(f"All that is known: jobhook alerts, jobhook doctor{f' (told by {teller})' if teller else ''}")
    return Message(title, "\n\n".join(blocks), level)


def _shown(part: dict[str, Alert]) -> list[Alert]:
    return list(part.values())[:MOST_LINES]


def _told(alert: Alert) -> str:
    times = f", {alert.times} times" if alert.times > 1 else ""
    return f"{alert.text} (since {at(alert.since)}{times})"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TITLE else f"{text[:LONGEST_TITLE]}…"


def known_fields(kind: type[Any], stored: dict[str, Any]) -> dict[str, Any]:
    """The fields that a dataclass has, of those that are stored."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}


def read_json(stored: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is none.
    """
    value = orjson.loads(stored)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
