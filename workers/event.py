"""The event as a handler sees it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

import orjson

from app.errors import JobhookError
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from workers.retry import Permanent
from workers.steps import Step, running

T = TypeVar("T")

MAX_RESULT_BYTES = 64 * 1024
"""Of a step's result, as JSON. It is kept in Redis for as long as the event."""


class LeaseLost(JobhookError):
    """The attempt is no longer the current one: another worker has the event. Nothing more is recorded."""


class BadResult(Permanent):
    """A step has run, but its result cannot be recorded; running it again would repeat its effect."""


class Event:
    """One JobsiteOn event, for one handler. Nothing in it can be changed."""

    def __init__(self, record: Record, inbox: Inbox, handler: str) -> None:
        self._record = record
        self._inbox = inbox
        self._handler = handler
        self._finished = dict(record.steps)

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
        """Whether a newer event of the same resource has been done already, judged by `occurred_at`.

        False where resource or time are not known. Webhooks come out of order: a handler that copies
        a state skips what is superseded, one that books each change does not.
        """
        resource, occurred = self._record.resource, self._record.occurred_at
        return bool(resource and occurred and self._inbox.latest(resource) > occurred)

    @property
    def content_type(self) -> str | None:
        """The Content-Type it was delivered with."""
        content_type: str | None = self._record.meta.get("headers", {}).get("content-type")
        return content_type

    @property
    def attempt(self) -> int:
        """1 on the first attempt."""
        return self._record.attempt

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

        Raises:
            LeaseLost: the result came too late to be recorded.
            BadResult: the result is not JSON, or too large.
        """
        if (step := self._step(name)) in self._finished:
            return self._finished[step]  # type: ignore[no-any-return]
        with running(Step(self.id, step)) as current:
            return self._finish(step, function(current.key))

    async def once_async(self, name: str, function: Callable[[str], Awaitable[T]]) -> T:
        """The same for a function that has to be awaited."""
        if (step := self._step(name)) in self._finished:
            return self._finished[step]  # type: ignore[no-any-return]
        with running(Step(self.id, step)) as current:
            return self._finish(step, await function(current.key))

    def _step(self, name: str) -> str:
        return f"{self._handler} / {name}"

    def _finish(self, step: str, result: T) -> T:
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
