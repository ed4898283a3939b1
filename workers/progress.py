"""How far the handlers of an event have got: who has finished, whose turn it is now, who waits, who has given up.

Each handler has attempts and a schedule of its own, so that neither a wait nor a failure of one of them sets
the pace of another. The event itself is due when the first of its handlers is; in an attempt those run that are
due by then. Pure: it reads a record, is told how each handler ended, and says what is to be recorded.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from time import monotonic

from app.inbox.paused import covering, reason
from app.inbox.record import HANDLER_STEP, STEP, TRIES, Outcome, Record, Tries, handlers_in
from app.units import format_duration
from workers.registry import Handler, Registry
from workers.retry import RetryAfter, judge
from workers.wording import message

SOON_SECONDS = 1.0
"""Who is due so soon runs now: an attempt of its own would follow at once."""
FRESH = Tries()
"""Of a handler that has not been tried."""
PAUSE_LOOK_SECONDS = 300.0
"""How often an event that waits for a pause to end looks by itself: it may have been put aside just as that ended."""
MAX_WHY = 300
"""Characters kept of what a handler waits for."""


class HandlerPaused(RetryAfter):
    """Somebody has paused the handler, or the events of this type (`jobhook pause`)."""

    counts = False

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(min(seconds, PAUSE_LOOK_SECONDS))
        self._what = what

    def __str__(self) -> str:
        return reason(self._what)


class HandlerGone(Exception):
    """A handler has begun the event, but there is none of this name any more. It may come back."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a handler gives up."""

    max_attempts: int
    retry_for: float
    """Seconds from an event's first attempt."""


@dataclass(slots=True)
class Failure:
    """How a handler has failed in this attempt."""

    handler: str
    error: BaseException
    given_up: str = ""
    """Why it has given up, if it has."""


@dataclass
class Settled:
    """What an attempt has come to."""

    outcome: Outcome
    delay: float = 0.0
    """Seconds until the next attempt."""
    only_waited: bool = False
    """Whether no handler has finished, used up an attempt or given up."""
    fields: dict[str, str] = field(default_factory=dict)
    """What the record has to keep of it."""
    failures: list[Failure] = field(default_factory=list)


class Progress:
    """The handlers of an event in an attempt."""

    def __init__(self, record: Record, registry: Registry) -> None:
        self._record = record
        self._begun = monotonic()
        self._since = record.since or record.started or record.received
        if record.held:  # an event does not age while it is kept from being worked on
            self._since += max(0.0, (record.started or record.held) - record.held)
        self._failures: list[Failure] = []
        self._now_finished: list[str] = []
        self.wanted = registry.matching(record.type)
        self.finished: Set[str] = frozenset()
        vanished: list[str] = []
        if record.steps or record.tries:
            fields = [*(STEP + step for step, _ in record.steps), *(TRIES + name for name in record.tries)]
            begun, self.finished = handlers_in(fields)
            vanished = sorted(begun - self.finished - registry.names)
        names = [handler.name for handler in self.wanted if handler.name not in self.finished]
        self._left = {name: self._tries(name) for name in names + vanished}
        if record.tries and all(tries.due is None for tries in self._left.values()):
            # All have given up, and yet it is at work: a version that does not know of them has put it back.
            self._left = dict.fromkeys(self._left, FRESH)
            self._since = record.started or record.received
        self._waits = self._remaining()
        self.due = self._rotated([handler for handler in self.wanted if self._is_due(handler.name)])
        """Who is to run, in this order."""
        for name in filter(self._is_due, vanished):
            self.failed(name, HandlerGone(f"Handler {name} has begun this event, and is not there any more."))

    def pause(self, paused: Mapping[str, float]) -> None:
        """Keeps handlers from their turn. `paused` says what is paused, and for how many seconds yet."""
        for handler in list(self.due) if paused else ():
            if what := covering(paused, handler.name, self._record.type):
                self.due.remove(handler)
                self.failed(handler.name, HandlerPaused(what, paused[what]))

    @property
    def is_wanted(self) -> bool:
        """Whether any handler wants the event, be it one that is not there any more."""
        return bool(self.wanted or self._left)

    @property
    def all_finished(self) -> tuple[str, ...]:
        """The handlers that have finished the event, in this attempt or before."""
        return tuple(sorted(self.finished | set(self._now_finished)))

    def attempt_of(self, handler: Handler) -> int:
        """Which attempt this is for a handler, from 1. Each crash may have been its own, and is counted for all."""
        return self._left[handler.name].used + self._record.crashes + 1

    def done(self, handler: Handler) -> None:
        """The handler has finished."""
        self._now_finished.append(handler.name)

    def failed(self, name: str, error: BaseException) -> None:
        """The handler has raised an error."""
        self._failures.append(Failure(name, error))

    def failed_all(self, error: BaseException) -> None:
        """All that were due and have not ended in this attempt have failed, for a reason of our own."""
        ended = {*self._now_finished, *(failure.handler for failure in self._failures)}
        for handler in self.due:
            if handler.name not in ended:
                self.failed(handler.name, error)

    def settle(self, limits: Limits) -> Settled:
        """What the attempt has come to, now that all who were due have run, or as many as there was time for."""
        if not self._failures and len(self._now_finished) == len(self._left):
            return Settled("done")
        elapsed = monotonic() - self._begun
        now = (self._record.started or self._record.received) + elapsed
        left = {name: tries for name, tries in self._left.items() if name not in self._now_finished}
        waits = {name: max(0.0, wait - elapsed) for name, wait in self._waits.items() if name in left}
        progressed, held = bool(self._now_finished), False
        for failure in self._failures:
            tries = left[failure.handler]
            verdict = judge(failure.error, tries.used, limits.max_attempts)
            delay, failure.given_up = verdict.delay, verdict.why
            is_paused = isinstance(failure.error, HandlerPaused)
            held = held or is_paused
            if delay is not None and not is_paused and now - self._since >= limits.retry_for:
                delay, failure.given_up = None, f"tried for {format_duration(limits.retry_for)} (JOBHOOK_RETRY_FOR)"
            progressed = progressed or verdict.used > tries.used or delay is None
            left[failure.handler] = Tries(verdict.used, None if delay is None else 0.0, _why(failure))
            waits.pop(failure.handler)
            if delay is not None:
                waits[failure.handler] = delay
        return Settled(
            outcome="retry" if waits else "dead",
            delay=min(waits.values(), default=0.0),
            only_waited=bool(waits) and not progressed,
            fields={
                "since": str(round(self._since * 1000)),
                **({"held": str(round(now * 1000) if held else 0)} if held or self._record.held else {}),
                **{STEP + HANDLER_STEP + name: "null" for name in self._now_finished},
                **{
                    TRIES + name: Tries(tries.used, now + waits[name] if name in waits else None, tries.why).stored
                    for name, tries in left.items()
                },
            },
            failures=self._failures,
        )

    def not_begun(self, cause: BaseException) -> Settled:
        """What follows if no handler could be begun: the event comes again at once, as if nothing had been."""
        return Settled("retry", only_waited=True, failures=[Failure("", cause)])

    def _tries(self, name: str) -> Tries:
        record = self._record
        if name in record.tries:
            return record.tries[name]
        before = record.attempt - 1 - record.crashes
        if before <= 0 or record.tries or record.since is not None:
            return FRESH
        return Tries(before)  # by a version that counted the attempts of the event alone

    def _rotated(self, due: list[Handler]) -> list[Handler]:
        """Begins with another handler after each crash.

        One that takes its process along does not keep those after it from their turn that way.
        """
        if not self._record.crashes or not due:
            return due
        first = self._record.crashes % len(due)
        return due[first:] + due[:first]

    def _remaining(self) -> dict[str, float]:
        """Seconds that each handler has yet to wait, without those that have given up."""
        if not self._record.tries:
            return dict.fromkeys(self._left, 0.0)
        due = {name: tries.due for name, tries in self._left.items() if tries.due is not None}
        # The event is at work because one of them is due. If none seems to be, the server's clock was set back.
        now = max(self._record.started or 0.0, min(due.values(), default=0.0))
        return {name: max(0.0, at - now) for name, at in due.items()}

    def _is_due(self, name: str) -> bool:
        return self._waits.get(name, SOON_SECONDS + 1) <= SOON_SECONDS


def _why(failure: Failure) -> str:
    return message(failure.error, MAX_WHY) + (f" ({failure.given_up})" if failure.given_up else "")
