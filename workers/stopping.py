"""SIGTERM and SIGINT: a stop is noted, and cuts short what a process may leave undone."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Cut(BaseException):
    """Raised by the signal, in the middle of what may be cut short."""


class Stop:
    """Counts the stops that a process has been asked for, once it listens. For its main thread."""

    def __init__(self) -> None:
        self.asked = 0
        self._may_cut = False

    def listen(self) -> None:
        """Takes over the signals."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def unless_stopped(self, act: Callable[[], T]) -> T | None:
        """What `act` returns; None if a stop has come before, or comes meanwhile and cuts it short, wherever it is."""
        try:
            try:
                self._may_cut = True
                return None if self.asked else act()
            finally:
                self._may_cut = False
        except _Cut:
            return None

    def _note(self, _: int, __: FrameType | None) -> None:
        # No more than this: it may have come in the middle of anything.
        self.asked += 1
        if self._may_cut:
            self._may_cut = False
            raise _Cut
