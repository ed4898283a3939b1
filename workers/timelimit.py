"""A limit on the time that handlers may take: a signal, which strikes wherever they are."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType, TracebackType
from typing import Self

INSIST_SECONDS = 1.0
"""How often the timeout strikes again, should a handler swallow even that."""


class HandlerTimeout(BaseException):
    """The time is up. Not an `Exception`, so that a handler's `except Exception` does not swallow it."""


class time_limit:  # noqa: N801 - used like a function
    """Raises HandlerTimeout in the block when it takes longer than so many seconds, and never after its end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed = False

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGALRM, self._strike)
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._seconds, INSIST_SECONDS)
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._previous)

    def _strike(self, _: int, interrupted: FrameType | None) -> None:
        # Python runs this between two steps of the main thread. The first of them in __exit__ may be its very
        # first one: an error raised there would leave the timer running, to strike anywhere later.
        over = interrupted is not None and interrupted.f_code is time_limit.__exit__.__code__
        if self._armed and not over:
            raise HandlerTimeout(f"The handlers took longer than {self._seconds:g} s.")


@contextmanager
def postponed(seconds: float) -> Iterator[float | None]:
    """Puts the strike off by so many seconds, for who ends what runs inside by himself when the time is up.

    Yields the seconds left until then; None if there is no limit.
    """
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if not left:
        yield None
        return
    begun = monotonic()
    signal.setitimer(signal.ITIMER_REAL, left + seconds, INSIST_SECONDS)
    try:
        yield left
    finally:
        # Not at once, so that it does not strike while the handler's end is being noted.
        signal.setitimer(signal.ITIMER_REAL, max(left - (monotonic() - begun), INSIST_SECONDS), INSIST_SECONDS)
