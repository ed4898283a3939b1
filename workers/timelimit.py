"""A limit on the time that handlers may take: a signal, which strikes wherever they are."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

INSIST_SECONDS = 1.0
"""How often the timeout strikes again, should a handler swallow even that."""


class HandlerTimeout(BaseException):
    """The time is up. Not an `Exception`, so that a handler's `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def strike(_: int, __: FrameType | None) -> None:
        raise HandlerTimeout(f"The handlers took longer than {seconds:g} s.")

    previous = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds, INSIST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


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
