"""The step that is being run, and the idempotency keys of what it writes.

A handler is a step of its event; `event.once` makes smaller ones. Each has a key that is the same
whenever the step is run again, to be passed on to whatever the step has an effect on.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from workers.answered import Answered

KEY_LENGTH = 32
"""Hex digits of an idempotency key: 128 bits."""


_current: "ContextVar[Step | None]" = ContextVar("step", default=None)


class Step:
    """A step of an event while it runs."""

    def __init__(self, event_id: str, name: str, answered: Answered | None = None) -> None:
        self.key = _digest(event_id, name)
        outer = _current.get()
        self.answered: Answered | None = answered or (outer.answered if outer else None)
        """What the API has answered to the handler that it belongs to."""
        self._numbers: Counter[str] = Counter()

    def write_key(self, method: str, path: str, content: bytes) -> str:
        """The key of a write of this step, made of what is written: a run that leaves out an earlier write does
        not give its key to a later one. Of identical writes in a step each has its own, by their number.
        """
        return self.numbered(method, path, hashlib.sha256(content).hexdigest())

    def numbered(self, *parts: str) -> str:
        """The key of what is done in this step, made of what it is and how often that has been done before."""
        what = _digest(self.key, *parts)
        self._numbers[what] += 1
        return _digest(what, str(self._numbers[what]))


@contextmanager
def running(step: Step) -> Iterator[Step]:
    """Makes a step the current one, for what is called inside."""
    token = _current.set(step)
    try:
        yield step
    finally:
        _current.reset(token)


def current() -> Step | None:
    """The step that runs, if one does."""
    return _current.get()


def write_key(method: str, path: str, content: bytes) -> str | None:
    """The idempotency key of a write made now; None outside of any step."""
    step = _current.get()
    return step.write_key(method, path, content) if step else None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_LENGTH]
