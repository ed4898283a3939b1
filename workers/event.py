"""The event as a handler sees it."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from app.inbox import Record


class Event:
    """One JobsiteOn event. Nothing in it can be changed."""

    def __init__(self, record: Record) -> None:
        self._record = record

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
        """The id of the contact, job, invoice, … that the event is about, if it could be told."""
        return self._record.meta.get("resource")

    @cached_property
    def received_at(self) -> datetime:
        """When it was first received."""
        return datetime.fromtimestamp(self._record.received, UTC)

    @cached_property
    def occurred_at(self) -> datetime | None:
        """When it happened, as far as the payload says."""
        seconds = self._record.meta.get("occurred_at")
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    @property
    def attempt(self) -> int:
        """1 on the first attempt."""
        return self._record.attempt

    @property
    def is_conflict(self) -> bool:
        """Whether another event has come under the same id with other bytes."""
        return self._record.conflict_of is not None

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.type}>"  # no payload: it ends up in logs
