"""What is read from the inbox and written to it, as values."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import orjson

from app.delivery.envelope import subject
from app.delivery.identity import Identity
from app.delivery.payload import data_of, parse

OPEN_STATES = ("queued", "running", "retrying")
STATES = (*OPEN_STATES, "done", "dead")

State = Literal["queued", "running", "retrying", "done", "dead"]
Outcome = Literal["done", "retry", "dead"]


class Delivery(NamedTuple):
    """An authentic delivery, ready to be recorded."""

    identity: Identity
    meta: bytes
    body: bytes

    @property
    def id(self) -> str:
        """The event's id, unless the delivery turns out to be a conflict."""
        return self.identity.id


@dataclass(frozen=True)
class Record:
    """One event as the inbox has it. Times are in seconds since 1970, by the Redis server's clock."""

    id: str
    state: State
    received: float
    body: bytes
    meta: dict[str, Any]
    token: int = 0
    """Counts the attempts ever made; fences off those that are no longer current."""
    attempt: int = 0
    """Counts the attempts since the event was received or last put back to work."""
    redelivered: int = 0
    redelivered_last: float | None = None
    rewritten: int = 0
    """How many of the redeliveries had other bytes."""
    rewritten_size: int | None = None
    """Bytes of the last body that differed."""
    rewritten_body: bytes | None = None
    """That body, if it is small enough to be kept."""
    conflict_of: str | None = None
    worker: str | None = None
    started: float | None = None
    attempts: tuple[dict[str, Any], ...] = ()
    """Every attempt ended: attempt, started, ended (ms), worker, outcome, error."""
    steps: tuple[tuple[str, Any], ...] = ()
    """Finished steps and their results."""
    leased_until: float = math.inf
    """Until when it is ours for certain, by the monotonic clock of the process that has taken it."""

    @classmethod
    def from_hash(cls, id: str, raw: dict[bytes, bytes], leased_until: float = math.inf) -> "Record":
        """A record from what HGETALL returns."""
        fields = {name.decode(): value for name, value in raw.items()}
        tokens = sorted(int(name[8:]) for name in fields if name.startswith("attempt:"))
        return cls(
            id=id,
            state=cast(State, fields["state"].decode()),
            received=int(fields["received"]) / 1000,
            body=fields["body"],
            meta=orjson.loads(fields["meta"]),
            token=int(fields.get("token", 0)),
            attempt=int(fields.get("attempt", 0)),
            redelivered=int(fields.get("redelivered", 0)),
            redelivered_last=int(fields["redelivered_last"]) / 1000 if "redelivered_last" in fields else None,
            rewritten=int(fields.get("rewritten", 0)),
            rewritten_size=int(fields["rewritten_size"]) if "rewritten_size" in fields else None,
            rewritten_body=fields.get("rewritten_body"),
            conflict_of=fields["conflict_of"].decode() if "conflict_of" in fields else None,
            worker=fields["worker"].decode() if "worker" in fields else None,
            started=int(fields["started"]) / 1000 if "started" in fields else None,
            attempts=tuple(orjson.loads(fields[f"attempt:{token}"]) for token in tokens),
            steps=tuple((name[5:], orjson.loads(fields[name])) for name in sorted(fields) if name[:5] == "step:"),
            leased_until=leased_until,
        )

    @property
    def type(self) -> str:
        """The event's type, `unknown` if its payload names none."""
        return str(self.meta["type"])

    @property
    def resource(self) -> str | None:
        """What the event is about, such as `invoice/inv_1`; None if that could not be told."""
        id = self.meta.get("resource")
        return f"{subject(self.type)}/{id}" if id else None

    @property
    def occurred_at(self) -> float | None:
        """When it happened, as far as the payload says; seconds since 1970."""
        return cast(float | None, self.meta.get("occurred_at"))

    @cached_property
    def payload(self) -> Any:
        """The whole JSON value of the body; None if it is not JSON."""
        return parse(self.body)

    @property
    def data(self) -> Any:
        """The business object in the payload: what is under `data` and the like, else the payload itself."""
        return data_of(self.payload)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, ready to be recorded."""

    id: str
    token: int
    outcome: Outcome
    attempt: bytes
    """The line of the event's history, as JSON."""
    delay: float = 0.0
    """Seconds until the next attempt, for the outcome `retry`."""
    unhandled: bool = False
    uncounted: bool = False
    """Whether this attempt does not use up one of those allowed."""
    resource: str = ""
    """What the event is about, if its being done makes older events superseded."""
    occurred_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one round trip of a worker brought."""

    recorded: bool | None
    """Whether the ended attempt was still the current one; None if there was none to end."""
    taken: Record | None
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found."""

    due: int
    expired: int
    lost: int
    trimmed: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The inbox in numbers."""

    states: dict[str, int]
    oldest_open_seconds: float
    counts: dict[str, int]
    """Counters since ever: `deliveries:<status>`, `attempts:<outcome>`, `events:done|dead|unhandled`."""
    swept_seconds_ago: float | None
    supervisors: dict[str, float]
    """Seconds since the last beat of each supervisor that has been at work within the last hour."""
    suspended: bool
    """Whether `rq suspend` keeps the workers from taking events."""
