"""Duties that are done again and again, beside what a process is there for."""

import threading
from collections.abc import Callable

import structlog

from app.errors import describe

CLOSE_SECONDS = 5.0
"""How long a process that stops waits for the round that is under way."""

log = structlog.stdlib.get_logger(__name__)


class Rounds:
    """A thread that does some duties, waits, and does them again. One that fails is tried again in the next round."""

    def __init__(self, name: str, seconds: float, *duties: Callable[[], None]) -> None:
        """Begins nothing yet. There are `seconds` between two rounds."""
        self._seconds = seconds
        self._duties = duties
        self._ends = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins with the first round."""
        self._thread.start()

    def wake(self) -> None:
        """Has the next round begin at once. Also for signal handlers."""
        self._wake.set()

    def close(self) -> None:
        """Ends with the round that is under way."""
        self._ends = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._ends:
            for duty in self._duties:
                try:
                    duty()
                except Exception as error:  # noqa: BLE001 - whatever it was, the next round is not to be missed
                    log.error("duty failed", duty=duty.__name__, **describe(error))
            self._wake.wait(self._seconds)
            self._wake.clear()
