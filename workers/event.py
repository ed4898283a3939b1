"""The event as a handler sees it."""

import inspect
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from inspect import CORO_CREATED
from types import MappingProxyType
from typing import Any, TypeVar

import orjson

from app.errors import JobhookError
from app.inbox.inbox import Inbox
from app.inbox.record import STEP_OF, Record
from workers.retry import Permanent
from workers.signature import not_run
from workers.steps import Step, running

T = TypeVar("T")

MAX_RESULT_BYTES = 64 * 1024
"""Of a step's result, as JSON. It is kept in Redis for as long as the event."""


class LeaseLost(JobhookError):
    """The attempt is no longer the current one: another worker has the event. Nothing more is recorded."""


class BadResult(Permanent):
    """A step has run, but its result cannot be recorded; running it again would repeat its effect."""


class StepRepeated(JobhookError):
    """Two steps of a handler have the same name: the second would never be run, in this attempt or any other."""


class StepNotRun(JobhookError):
    """The function of a step, or the step itself, was never awaited: nothing of it has been run."""


class Event:
    """One JobsiteOn event, for one attempt of one handler. Nothing in it can be changed."""

    def __init__(
        self,
        record: Record,
        inbox: Inbox,
        handler: str,
        attempt: int | None = None,
        errors: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._record = record
        self._inbox = inbox
        self._handler = handler
        self._attempt = record.attempt if attempt is None else attempt
        self._finished = dict(record.steps)
        self._errors = errors
        self._names: set[str] = set()
        self._awaitables: list[tuple[str, Coroutine[Any, Any, Any]]] = []

    @property
    def id(self) -> str:
        """32 hex digits; the same for every delivery of this event. Made for idempotency keys."""
        return self._record.id

    @property
    def type(self) -> str:
        """Such as `invoice.paid`; `unknown` if the payload names none."""
        return self._record.type

    @property
    def body(self) -> bytes:
        """The bytes as JobsiteOn signed them."""
        return self._record.body

    @property
    def payload(self) -> Any:
        """The JSON value of the body; None if it is not JSON."""
        return self._record.payload

    @property
    def data(self) -> Any:
        """The business object: what the payload has under `data` and the like, else the payload."""
        return self._record.data

    @property
    def resource(self) -> str | None:
        """What the event is about, such as `invoice/inv_1`, if it could be told."""
        return self._record.resource

    @property
    def errors(self) -> Mapping[str, str]:
        """For `@on_dead`: why each handler has given up, by the handler's name. Empty as long as the event lives."""
        return self._errors

    @cached_property
    def received_at(self) -> datetime:
        """When it was first received."""
        return datetime.fromtimestamp(self._record.received, UTC)

    @cached_property
    def occurred_at(self) -> datetime | None:
        """When it happened, as far as the payload says."""
        seconds = self._record.occurred_at
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    @property
    def superseded(self) -> bool:
        """Whether this handler has already finished a newer event of the same resource.

        Newer is what occurred later, as far as the payloads say; but no event counts as later than it was
        received. False where resource or time are not known. Webhooks come out of order: a handler that
        copies a state skips what is superseded, one that books each change does not.
        """
        record = self._record
        if not record.resource or record.position is None:
            return False
        now = record.started or record.received
        return self._inbox.latest(record.resource, self._handler, now) > record.position

    @property
    def content_type(self) -> str | None:
        """The Content-Type it was delivered with."""
        content_type: str | None = self._record.meta.get("headers", {}).get("content-type")
        return content_type

    @property
    def attempt(self) -> int:
        """1 on this handler's first attempt. Counts those whose process has died, but no mere waits."""
        return self._attempt

    @property
    def is_conflict(self) -> bool:
        """Whether another event came before under the same event id, and said something else."""
        return self.conflict_of is not None

    @property
    def conflict_of(self) -> str | None:
        """The id of that other event."""
        return self._record.conflict_of

    def once(self, name: str, function: Callable[[str], T]) -> T:
        """The result of `function(idempotency_key)`, which is run only if it has not finished before (P5).

        The result is kept as JSON, so what is returned is what JSON makes of it. A process killed
        inside the function has it run once more, with the same key: pass the key on.

        Each step needs a name of its own, the same in every attempt: in a loop, put into it what the turn of
        the loop is about, as in `f"reminder {contact_id}"`.

        Raises:
            StepRepeated: a step of this name has been finished in this attempt, or is being run.
            StepNotRun: the function has to be awaited: use `once_async`.
            LeaseLost: the result came too late to be recorded.
            BadResult: the result is not JSON, or too large.
        """
        with self._taken(name) as step:
            if step in self._finished:
                return self._finished[step]  # type: ignore[no-any-return]
            with running(Step(self.id, step)) as current:
                result = function(current.key)
            if inspect.isawaitable(result):
                _discard(result)
                raise StepNotRun(f"Step {name!r} has to be awaited: await event.once_async(…).")
            return self._finish(step, result)

    def once_async(self, name: str, function: Callable[[str], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """The same for a function that has to be awaited. Await it, or its handler has failed."""
        awaitable = self._once_async(name, function)
        self._awaitables.append((name, awaitable))
        return awaitable

    async def _once_async(self, name: str, function: Callable[[str], Awaitable[T]]) -> T:
        with self._taken(name) as step:
            if step in self._finished:
                return self._finished[step]  # type: ignore[no-any-return]
            with running(Step(self.id, step)) as current:
                result = function(current.key)
                # A plain function has had its effect by now: to fail would repeat it.
                return self._finish(step, await result if inspect.isawaitable(result) else result)

    def close(self) -> None:
        """Called when the handler has ended.

        Raises:
            StepNotRun: a `once_async` was not awaited.
        """
        idle = [(name, step) for name, step in self._awaitables if inspect.getcoroutinestate(step) == CORO_CREATED]
        for _, step in idle:
            step.close()
        if idle:
            raise StepNotRun(f"Step {idle[0][0]!r} was not awaited: await event.once_async(…).")

    @contextmanager
    def _taken(self, name: str) -> Iterator[str]:
        """The step of a name, which no other may have in this attempt unless it fails."""
        step = f"{self._handler}{STEP_OF}{name}"
        if step in self._names:
            raise StepRepeated(f"Step {name!r} is there twice: give each step a name of its own, in a loop too.")
        self._names.add(step)
        try:
            yield step
        except (BadResult, LeaseLost):  # it has run
            raise
        except BaseException:
            self._names.discard(step)
            raise

    def _finish(self, step: str, result: T) -> T:
        if what := not_run(result):
            raise StepNotRun(f"Step {step!r} has returned {what}: nothing of it has been run.")
        try:
            stored = orjson.dumps(result)
        except TypeError as error:
            raise BadResult(f"The result of step {step!r} is not JSON: {error}") from None
        if len(stored) > MAX_RESULT_BYTES:
            raise BadResult(f"The result of step {step!r} is over {MAX_RESULT_BYTES} bytes of JSON.")
        if not self._inbox.record_step(self.id, self._record.token, step, stored):
            raise LeaseLost(f"Another worker has event {self.id} by now.")
        self._finished[step] = orjson.loads(stored)
        return self._finished[step]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.type}>"  # no payload: it ends up in logs


def _discard(awaitable: Any) -> None:
    """Lets go of what is not going to be awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    elif isinstance(awaitable, Future):
        awaitable.cancel()
