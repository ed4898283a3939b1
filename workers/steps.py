"""The step that is being run, and the idempotency keys of what it writes.

A handler is a step of its event; `event.once` makes smaller ones. Each has a key that is the same
whenever the step is run again, to be passed on to whatever the step has an effect on.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

KEY_LENGTH = 32
"""Hex digits of an idempotency key: 128 bits."""


class Step:
    """A step of an event while it runs."""

    def __init__(self, event_id: str, name: str) -> None:
        self.key = _digest(event_id, name)
        self._writes = 0

    def write_key(self, method: str, path: str) -> str:
        """The key of the next write of this step; the same writes in the same order get the same keys."""
        self._writes += 1
        return _digest(self.key, str(self._writes), method, path)


_current: ContextVar[Step | None] = ContextVar("step", default=None)


@contextmanager
def running(step: Step) -> Iterator[Step]:
    """Makes a step the current one, for what is called inside."""
    token = _current.set(step)
    try:
        yield step
    finally:
        _current.reset(token)


def write_key(method: str, path: str) -> str | None:
    """The idempotency key of a write made now; None outside of any step."""
    step = _current.get()
    return step.write_key(method, path) if step else None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]
