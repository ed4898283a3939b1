"""What is noted while it happens: deliveries, effects, interruptions and episodes. All times are monotonic.

The handlers note their effects in a file outside the Redis under fault; everything else is noted in the
process that injects the faults.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

EFFECTS_FILE = "CHAOS_EFFECTS"
"""The environment variable that names the file of the effects."""

Kind = Literal["effect", "finished"]


@dataclass(slots=True)
class Delivery:
    """One try to deliver a body, and its answer."""

    body: bytes
    receiver: int
    sent: float
    authentic: bool = True
    answered: float | None = None
    status: int | None = None
    """None if there was no answer."""
    verdict: str | None = None
    """`accepted`, `duplicate` or `conflict`."""
    id: str | None = None
    """The event that the delivery was recorded as."""
    first: bytes | None = None
    """The body of which this one was written anew; None if it was not."""

    @property
    def said(self) -> bytes:
        """What makes deliveries the same event: the body as it was written first."""
        return self.first or self.body


class Effect(NamedTuple):
    """One line of the effects' file. `finished` says that the step's end had been recorded by then."""

    kind: Kind
    event: str
    step: str
    key: str
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Interruption:
    """Something that may have cut a step in the middle: a kill, a freeze, a jump of the clock."""

    what: str
    begun: float
    ended: float
    pid: int | None
    """None if it struck every process."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault, from the steady state before it to the one after it."""

    fault: str
    row: str
    begun: float
    struck: float
    healing_from: float
    healed: float | None
    """None if it did not heal in time."""
    last: str | None = None
    """An event that was waited for to the end."""

    @property
    def seconds(self) -> float:
        """To heal."""
        return float("inf") if self.healed is None else max(0.0, self.healed - self.healing_from)


@dataclass
class Ledger:
    """Everything that was noted in one run."""

    file: Path
    deliveries: list[Delivery] = field(default_factory=list)
    interruptions: list[Interruption] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """What a fault itself has found to be wrong."""

    def effects(self) -> list[Effect]:
        """What the handlers have noted, in the order of time."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return sorted((_read(line) for line in lines), key=lambda effect: effect.at)


def append(file: str, effect: Effect) -> None:
    """Notes an effect: one write, which a kill cannot cut and other processes cannot mix with theirs."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, ("\t".join(map(str, effect)) + "\n").encode())
    finally:
        os.close(descriptor)


def _read(line: str) -> Effect:
    kind, event, step, key, pid, at = line.split("\t")
    return Effect("effect" if kind == "effect" else "finished", event, step, key, int(pid), float(at))
