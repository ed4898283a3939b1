"""A limit on the time that handlers may take: a signal, which strikes wherever they are."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from types import FrameType, TracebackType
from typing import Self

from httpcore._synchronization import ThreadLock
from redis.connection import HiredisRespSerializer

INSIST_SECONDS = 1.0
"""How often the timeout strikes again, should a handler swallow even that."""
DEFER_SECONDS = 0.001
"""How much later it strikes if it would do damage at the moment."""


class HandlerTimeout(BaseException):
    """The time is up. Not an `Exception`, so that a handler's `except Exception` does not swallow it."""


_FRAGILE = {
    # hiredis writes numbers as text, and the process dies if a signal raises meanwhile. Our own connections give it
    # none; those that handlers open themselves do.
    HiredisRespSerializer.pack.__code__,
    # A lock that is taken but whose block is not entered yet would never be given back.
    ThreadLock.__enter__.__code__,
    ThreadLock.__exit__.__code__,
}
"""Functions of libraries, over in microseconds, in which a signal must not raise."""


class time_limit:  # noqa: N801 - used like a function
    """Raises HandlerTimeout in the block when it takes longer than so many seconds, and never after its end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed = False
        self.has_struck = False
        """Whether it has cut something short, if only something that the handler then caught."""

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
        code = interrupted.f_code if interrupted else None
        if not self._armed or code is time_limit.__exit__.__code__:
            return
        # The next signal may come while this function has not returned to what it has spared yet.
        if code in _FRAGILE or code is time_limit._strike.__code__:
            signal.setitimer(signal.ITIMER_REAL, DEFER_SECONDS, INSIST_SECONDS)
            return
        self.has_struck = True
        raise HandlerTimeout(f"The handlers took longer than {self._seconds:g} s.")


def seconds_to_strike() -> float:
    """Until the running limit strikes, seen from any thread; infinity if there is none."""
    return signal.getitimer(signal.ITIMER_REAL)[0] or inf


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
