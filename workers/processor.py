"""One event: run its handlers and say how the attempt ended."""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from types import MappingProxyType
from typing import Any

import structlog
from redis.exceptions import ConnectionError, RedisError, TimeoutError  # noqa: A004

from app.config.reload import LOOK_SECONDS, Reloader
from app.errors import describe
from app.inbox import measured
from app.inbox.inbox import Inbox
from app.inbox.record import HANDLER_STEP, TRIES, Ended, Handled, Record, Tries
from app.ops import logs, printed
from app.ops.rounds import Rounds
from app.store.pools import connections_in_use, drop_connections
from workers import frames, history
from workers.answered import Answered
from workers.coroutines import Coroutines
from workers.event import Event, LeaseLost
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn
from workers.measures import Measures
from workers.progress import Limits, Progress, Settled
from workers.registry import Handler, Registry
from workers.resources import Resources
from workers.retry import is_mere_wait, leaves, span
from workers.signature import not_run
from workers.status import Status
from workers.steps import Step, running
from workers.timelimit import HandlerTimeout, time_limit

NOTHING: Mapping[str, float] = MappingProxyType({})

log = structlog.stdlib.get_logger(__name__)


class NotRun(Exception):
    """A handler has returned what would have to be run, instead of running it."""


class Processor:
    """Runs handlers, one event at a time. For the main thread of a process: timeouts are signals."""

    def __init__(self, inbox: Inbox, registry: Registry, status: Status | None = None) -> None:
        settings = inbox.settings
        self._status = status
        self._inbox = inbox
        self._registry = registry
        self._timeout = settings.handler_timeout
        retry_for = settings.retry_for
        if "retry_for" not in settings.model_fields_set:
            retry_for = max(retry_for, math.ceil(span(settings.max_attempts) / 3600) * 3600.0)
        self._limits = Limits(settings.max_attempts, retry_for)
        self._resources = Resources(inbox)
        all_of_them = [*registry.handlers, *registry.of_the_dead]
        # If no handler asks JobsiteOn's API, nothing of its answers is cached that an event could make out of date.
        self._uses_api = any(need.type in {JobsiteOn, AsyncJobsiteOn} for h in all_of_them for need in h.needs)
        self._coroutines = Coroutines()
        self._took: dict[str, float] = {}
        """Seconds that each handler has run in this attempt, by name."""
        self.measures = Measures()

    def process(self, record: Record, paused: Mapping[str, float] = NOTHING) -> Ended | None:
        """Runs those of an event's handlers that are due and not `paused`. Never raises what a handler raised.

        None if the event has to wait for its turn: it is given back already.
        """
        begun = monotonic()
        self._took = {}
        progress = Progress(record, self._registry)
        progress.pause(paused)
        try:
            if not self._take_turn(record, progress.due):
                return None
            settled = self._run(record, progress)
        except (ConnectionError, TimeoutError) as error:
            settled = progress.not_begun(error)
        except RedisError as error:  # to ask again at once would be no use
            progress.failed_all(error)
            settled = progress.settle(self._limits)
        elapsed = monotonic() - begun
        history.tell(record, settled, elapsed, len(progress.wanted))
        self._measure(record, settled)
        return Ended(
            id=record.id,
            token=record.token,
            outcome=settled.outcome,
            attempt=history.line(record, settled, elapsed, len(progress.wanted)),
            delay=settled.delay,
            unhandled=not progress.is_wanted,
            uncounted=settled.only_waited,
            fields=settled.fields,
            handled=_handled(record, progress),
        )

    def _measure(self, record: Record, settled: Settled) -> None:
        if record.token == 1 and self._took and record.started:
            self.measures.add(measured.waited(record.started - record.received))
        failures = {failure.handler: failure for failure in settled.failures}
        for name, seconds in self._took.items():
            failure = failures.get(name)
            if failure is None:
                self.measures.add(measured.run(name, "finished", seconds))
                continue
            waited = not failure.given_up and is_mere_wait(failure.error)
            outcome = "waited" if waited else "given_up" if failure.given_up else "failed"
            self.measures.add(measured.run(name, outcome, seconds))
            if not waited:
                kind = type(leaves(failure.error)[0])
                self.measures.add(measured.failed(f"{kind.__module__}.{kind.__qualname__}"))

    def must_tell_of(self, ended: Ended, record: Record) -> bool:
        """Whether somebody wants to know that an event has died, as soon as that is recorded."""
        return ended.outcome == "dead" and bool(self._registry.for_the_dead(record.type))

    def tell_of(self, ended: Ended, record: Record) -> None:
        """Runs what is registered with `@on_dead` for an event, if that has died and it is recorded. Never raises."""
        if not self.must_tell_of(ended, record):
            return
        errors = dict(_reasons(ended, record))
        limit, others = time_limit(self._timeout), connections_in_use(self._inbox.redis)
        running = ""
        try:
            with limit:
                for handler in self._registry.for_the_dead(record.type):
                    running = handler.name
                    self._tell_one(handler, Event(record, self._inbox, handler.name, errors=errors))
        except HandlerTimeout as timeout:
            _say_failed(running, record.id, timeout)
        self._drop_what_was_cut(limit, others)

    def _tell_one(self, handler: Handler, event: Event) -> None:
        try:
            self.call(handler, event)
        except HandlerTimeout:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it changes nothing of the event
            _say_failed(handler.name, event.id, error)

    def follow_keys(self) -> None:
        """From now on takes over keys that change, in this process; its supervisor says so for all."""
        if self._uses_api:
            reloader = Reloader(self._inbox.settings, self._resources.use, tells=False)
            Rounds("keys", LOOK_SECONDS, reloader.look).start()

    def close(self) -> None:
        """Ends the event loop of async handlers, if there was any."""
        self._coroutines.close()

    def _take_turn(self, record: Record, due: list[Handler]) -> bool:
        if not record.resource or not any(handler.one_at_a_time for handler in due):
            return True
        if self._inbox.take_turn(record.id, record.token, record.resource):
            return True
        log.debug("waits for its turn", id=record.id, type=record.type)
        return False

    def _run(self, record: Record, progress: Progress) -> Settled:
        """What came of it, after every handler that is due has had its turn."""
        # Whoever stood still since taking the event may be overtaken before the timeout, which counts from here.
        if monotonic() + self._timeout > record.leased_until:
            return progress.not_begun(LeaseLost(f"Too little was left of the lease of event {record.id} to begin it."))
        limit, others = time_limit(self._timeout), connections_in_use(self._inbox.redis)
        try:
            with limit:
                if self._uses_api:
                    self._resources.forget(record)
                self._run_each(record, progress)
        except HandlerTimeout as timeout:
            progress.failed_all(timeout)
        except Exception as error:  # noqa: BLE001 - our own trouble, as with Redis, is one more reason to retry
            progress.failed_all(error)
        self._drop_what_was_cut(limit, others)
        return progress.settle(self._limits)

    def _drop_what_was_cut(self, limit: time_limit, others: frozenset[Any]) -> None:
        """Drops connections that a strike may have left in the middle of a command; `others` were in use before."""
        if limit.has_struck:
            drop_connections(self._inbox.redis, but=others)
            self._resources.drop()

    def _run_each(self, record: Record, progress: Progress) -> None:
        together: list[Handler] = []
        for handler in progress.due:
            if handler.is_concurrent:
                together.append(handler)
                continue
            self._enter(record, handler)
            error = self._outcome(record, progress, handler)
            if not self._note(record, progress, handler, error):
                return
        if together:
            self._run_together(record, progress, together)

    def _run_together(self, record: Record, progress: Progress, handlers: list[Handler]) -> None:
        """Each in a thread of its own: one that is slow or silent takes no time from the others.

        The threads keep a time of their own. One that stands still all the same is left behind when the time is up.
        """
        self._enter(record, *handlers)
        outcomes: dict[str, BaseException | None] = {}
        ended: SimpleQueue[Handler] = SimpleQueue()

        def run(handler: Handler) -> None:
            outcomes[handler.name] = self._outcome(record, progress, handler)
            ended.put(handler)

        for handler in handlers:
            try:
                Thread(target=run, args=(handler,), daemon=True).start()
            except RuntimeError:  # there can be no more threads now
                run(handler)
        try:
            for _ in handlers:
                handler = ended.get()
                if not self._note(record, progress, handler, outcomes[handler.name]):
                    return
        except HandlerTimeout:
            for handler in handlers:
                if handler.name in outcomes and not progress.has_ended(handler):
                    progress.note(handler, outcomes[handler.name])
            raise

    def _outcome(self, record: Record, progress: Progress, handler: Handler) -> BaseException | None:
        """Runs a handler. What it raised, if anything."""
        attempt = progress.attempt_of(handler)
        answered = Answered(self._inbox, record, handler.name, attempt) if handler.needs else None
        failure: BaseException | None = None
        begun = monotonic()
        try:
            self.call(handler, Event(record, self._inbox, handler.name, attempt), answered)
        except BaseException as error:  # noqa: BLE001 - a handler's sys.exit() is its failure, not ours
            failure = error
        self._took[handler.name] = monotonic() - begun
        if answered:
            answered.end(is_continued=failure is not None and is_mere_wait(failure))
        return failure

    def _note(self, record: Record, progress: Progress, handler: Handler, error: BaseException | None) -> bool:
        """Notes how a handler has ended. Whether others are to be run."""
        progress.note(handler, error)
        if error:
            # There is no time for the others, or they are the new owner's to run.
            return not any(isinstance(cause, HandlerTimeout | LeaseLost) for cause in leaves(error))
        # The last one's success is recorded with the end of the attempt.
        return progress.is_at_end or self._inbox.record_step(
            record.id, record.token, HANDLER_STEP + handler.name, b"null"
        )

    def _enter(self, record: Record, *handlers: Handler) -> None:
        if self._status:
            self._status.enter(record.id, record.token, ", ".join(handler.name for handler in handlers))

    def call(self, handler: Handler, event: Event, answered: Answered | None = None) -> None:
        """Runs a handler to its end, whatever it raises; without a limit on its time, and nothing is recorded."""
        # A copy of the context: what a handler sets in it ends with the handler.
        copy_context().run(self._call_in_context, handler, event, answered)

    def _call_in_context(self, handler: Handler, event: Event, answered: Answered | None) -> None:
        logs.handling.set((event.id, handler.name))
        try:
            with running(Step(event.id, HANDLER_STEP + handler.name, answered)):
                result: Any = self._begin(handler, event)
                while result is not None and inspect.isawaitable(result):
                    result = self._coroutines.run(result)
        finally:
            printed.finish()
        event.close()
        if result is not None and (what := not_run(result)):
            raise NotRun(f"Handler {handler.name} has returned {what}: nothing of it has been run.")

    def _begin(self, handler: Handler, event: Event) -> Any:
        if not handler.needs:
            return handler.function(event)
        by_place = [self._resources(need.type) for need in handler.needs if not need.by_name]
        by_name = {need.parameter: self._resources(need.type) for need in handler.needs if need.by_name}
        return handler.function(event, *by_place, **by_name)


def _say_failed(handler: str, id: str, error: BaseException) -> None:
    """Logs that an `@on_dead` has failed; its type and place alone, since a message may quote a payload (P7)."""
    where = frames.place(leaves(error)[0])
    log.error("on_dead failed", id=id, handler=handler, **describe(error) | ({"where": where} if where else {}))


def _reasons(ended: Ended, record: Record) -> Iterator[tuple[str, str]]:
    """Why each handler has given up that has: in this attempt, or in one before."""
    before = {TRIES + name: tries.stored for name, tries in record.tries.items()}
    for name, stored in (before | ended.fields).items():
        if name.startswith(TRIES) and (tries := Tries.read(stored.encode())).due is None:
            yield name.removeprefix(TRIES), tries.why


def _handled(record: Record, progress: Progress) -> Handled | None:
    if not record.resource or record.position is None or not progress.all_finished:
        return None
    return Handled(record.resource, record.position, progress.all_finished)
