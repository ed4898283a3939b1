"""What is read from the inbox and written to it, as values."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import orjson

from app.delivery.envelope import subject
from app.delivery.identity import Identity
from app.delivery.payload import data_of, parse
from app.errors import DamagedRecord
from app.inbox.paused import Pause

OPEN_STATES = ("queued", "running", "retrying")
STATES = (*OPEN_STATES, "done", "dead")

STEP, TRIES = "step:", "tries:"
"""What the names of a record's fields begin with: results of finished steps, and what handlers have tried."""
HANDLER_STEP = "handler "
"""What the name of the step begins with that is a whole handler."""
STEP_OF = " / "
"""Between a handler's name and that of one of its steps."""

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


@dataclass(frozen=True, slots=True)
class Tries:
    """What a handler that has not finished has tried of an event, since it was received or put back to work."""

    used: int = 0
    """Attempts that it has used up."""
    due: float | None = 0.0
    """When it may try again, in seconds since 1970 by the server's clock; None: it has given up."""
    why: str = ""
    """What it waits for, or why it has given up."""

    @classmethod
    def read(cls, stored: bytes) -> "Tries":
        """From the form that `stored` has."""
        used, due, why = orjson.loads(stored)
        return cls(used, None if due is None else due / 1000, why)

    @property
    def stored(self) -> str:
        """The value of the field `tries:<handler>`."""
        return orjson.dumps([self.used, None if self.due is None else round(self.due * 1000), self.why]).decode()


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
    """Counts the attempts since the event was received or last put back to work; mere waits are not counted."""
    since: float | None = None
    """When the first of these attempts began; None until one has failed. From then on counts the event's age."""
    crashes: int = 0
    """Attempts among them whose process has died."""
    held: float | None = None
    """When a handler was found to be paused at the end of the last attempt; None if none was."""
    tries: dict[str, Tries] = field(default_factory=dict)
    """What each handler has tried in them, by name: of those that have failed, or wait while others did."""
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
    handler: str | None = None
    """The handler that it is in, once it has been in it for a second or two."""
    replays: tuple[tuple[float, str], ...] = ()
    """When it was put back to work on request, and in which state it was, in this order."""
    emptied: float | None = None
    """When what it says was taken out for good: its body, errors and results."""
    discarded: float | None = None
    """When it was closed for that, without having been done."""
    attempts: tuple[dict[str, Any], ...] = ()
    """Every attempt ended: attempt, started, ended (ms), worker, outcome, error."""
    steps: tuple[tuple[str, Any], ...] = ()
    """Finished steps and their results."""
    leased_until: float = math.inf
    """Until when it is ours for certain, by the monotonic clock of the process that has taken it."""

    @classmethod
    def from_hash(cls, id: str, raw: dict[bytes, bytes], leased_until: float = math.inf) -> "Record":
        """A record from what HGETALL returns.

        Raises:
            DamagedRecord: it cannot be read.
        """
        try:
            record = cls._read(id, raw, leased_until)
        except (KeyError, ValueError, TypeError) as error:  # whose message may quote what is stored
            cause = f"no field {error}" if isinstance(error, KeyError) else "a field has a wrong value"
            raise DamagedRecord(f"The record of event {id} cannot be read: {cause}.") from None
        return record

    @classmethod
    def _read(cls, id: str, raw: dict[bytes, bytes], leased_until: float) -> "Record":
        fields = {name.decode(): value for name, value in raw.items()}
        several = _several(fields)
        state, meta = fields["state"].decode(), orjson.loads(fields["meta"])
        if state not in STATES or not isinstance(meta, dict) or "type" not in meta:
            raise ValueError
        return cls(
            id=id,
            state=cast(State, state),
            received=int(fields["received"]) / 1000,
            body=fields["body"],
            meta=meta,
            token=int(fields.get("token", 0)),
            attempt=int(fields.get("attempt", 0)),
            since=int(fields["since"]) / 1000 if "since" in fields else None,
            crashes=int(fields.get("crashes", 0)),
            held=int(fields.get("held", 0)) / 1000 or None,
            tries={name: Tries.read(value) for name, value in several.get(TRIES, ())} if "since" in fields else {},
            redelivered=int(fields.get("redelivered", 0)),
            redelivered_last=int(fields["redelivered_last"]) / 1000 if "redelivered_last" in fields else None,
            rewritten=int(fields.get("rewritten", 0)),
            rewritten_size=int(fields["rewritten_size"]) if "rewritten_size" in fields else None,
            rewritten_body=fields.get("rewritten_body"),
            conflict_of=fields["conflict_of"].decode() if "conflict_of" in fields else None,
            worker=fields["worker"].decode() if "worker" in fields else None,
            started=int(fields["started"]) / 1000 if "started" in fields else None,
            handler=_handler(fields) if state == "running" and "handling" in fields else None,
            replays=tuple(sorted((int(at) / 1000, was.decode()) for at, was in several.get("replay:", ()))),
            emptied=int(fields["emptied"]) / 1000 if "emptied" in fields else None,
            discarded=int(fields["discarded"]) / 1000 if "discarded" in fields else None,
            attempts=tuple(orjson.loads(line) for _, line in sorted(several.get("attempt:", ()), key=_number)),
            steps=tuple((name, orjson.loads(result)) for name, result in sorted(several.get(STEP, ()))),
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

    @property
    def unfinished(self) -> dict[str, Tries]:
        """What the handlers have tried that have begun this event, have failed or waited, and have not finished yet."""
        finished = {step.removeprefix(HANDLER_STEP) for step, _ in self.steps if step.startswith(HANDLER_STEP)}
        closed = self.state == "done"
        return {} if closed else {name: tries for name, tries in self.tries.items() if name not in finished}

    @property
    def is_unhandled(self) -> bool:
        """Whether it is done because no handler wanted it."""
        return self.state == "done" and bool(self.attempts) and self.attempts[-1].get("handlers") == 0

    @property
    def position(self) -> float | None:
        """Where it stands among the events of its resource: when it occurred, but never later than it was received.

        A sender's clock that is wrong, or a due date taken for the time of the event, would otherwise put
        it before everything that comes after.
        """
        return None if self.occurred_at is None else min(self.occurred_at, self.received)

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
    """Whether it was only a wait: the attempt leaves no line in the history, and is not counted."""
    fields: dict[str, str] = field(default_factory=dict)
    """What to write into the record: what handlers have tried, and which have finished."""
    handled: "Handled | None" = None


@dataclass(frozen=True, slots=True)
class Handled:
    """Which handlers have finished an event of a resource: for them, older events of it are superseded."""

    resource: str
    occurred: float
    """The event's `position`."""
    handlers: tuple[str, ...]


def _several(fields: dict[str, bytes]) -> dict[str, list[tuple[str, bytes]]]:
    """The fields of which there may be several, by their prefix (`step:`): the rest of each name, and the value."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    for name, value in fields.items():
        prefix, colon, rest = name.partition(":")
        if colon:
            found.setdefault(prefix + colon, []).append((rest, value))
    return found


def _number(field: tuple[str, bytes]) -> int:
    return int(field[0])


def _handler(fields: dict[str, bytes]) -> str | None:
    """The handler that is noted for the current attempt; what is noted may be of the one before."""
    token, handler = orjson.loads(fields["handling"])
    return cast(str, handler) if token == int(fields.get("token", 0)) else None


def errors_of(attempt: dict[str, Any]) -> list[dict[str, str]]:
    """All that were raised in an attempt, given its line of the history. Of the first, the tracebacks stand apart."""
    first, all_of_them = attempt.get("error"), attempt.get("errors", [])
    return [first | (all_of_them[0] if all_of_them else {}), *all_of_them[1:]] if first else []


def handlers_in(fields: Iterable[str]) -> tuple[set[str], set[str]]:
    """The handlers that a record's fields tell of: those that have begun it, and those of them that have finished."""
    begun, finished = set(), set()
    for name in fields:
        if name.startswith(TRIES):
            begun.add(name.removeprefix(TRIES))
        elif name.startswith(STEP + HANDLER_STEP):
            finished.add(name.removeprefix(STEP + HANDLER_STEP))
        elif name.startswith(STEP) and STEP_OF in name:
            begun.add(name.removeprefix(STEP).partition(STEP_OF)[0])
    return begun | finished, finished


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one round trip of a worker brought."""

    recorded: bool | None
    """Whether the ended attempt was still the current one; None if there was none to end."""
    taken: Record | None
    suspended: bool = False
    paused: dict[str, float] = field(default_factory=dict)
    """What is paused, but for everything, and for how many seconds yet; infinite until it is ended."""
    damaged: DamagedRecord | None = None
    """Why the event that was next could not be read. It was set aside."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found."""

    due: int
    expired: int
    lost: int
    trimmed: int
    mended: int = 0
    """Unfinished events that were in no index or in a wrong one."""
    broken: tuple[str, ...] = ()
    """The ids of events that were set aside, because their record is gone or cannot be read."""
    misfits: tuple[str, ...] = ()
    """Keys of the inbox that were of a wrong type. They were renamed, and what they held is put together again."""


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
    paused: list[Pause] = field(default_factory=list)
