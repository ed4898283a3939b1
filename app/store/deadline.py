"""Until when whoever waits for the network in a block of code may wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf
from time import monotonic

_deadline: ContextVar[float] = ContextVar("deadline", default=inf)


@contextmanager
def hurried(deadline: float) -> Iterator[None]:
    """What is asked for in the block, of Redis with all retries, is given up at the deadline (monotonic clock)."""
    token = _deadline.set(min(deadline, _deadline.get()))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float:
    """Until the deadline; infinity if there is none, negative if it has passed."""
    deadline = _deadline.get()
    return deadline if deadline == inf else deadline - monotonic()
