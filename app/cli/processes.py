"""What `jobhook dev` runs: the receiver, the workers, perhaps a simulator."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from time import monotonic
from typing import Self

STOP_SECONDS = 60.0
RELOAD_SECONDS = 1.0
"""How long a restart waits for what is in hand; then handlers are interrupted."""
INTERRUPT_SECONDS = 10.0
"""How long that may take."""


class Processes:
    """The receiver and the workers, as child processes that a Ctrl-C does not reach by itself."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, ...]] = [("app", "serve"), ("workers",)]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts them all."""
        for module in self.modules:
            command = [sys.executable, "-m", *module]
            self._running.append(subprocess.Popen(command, start_new_session=True))  # noqa: S603 - our own modules

    def stop(self, patience: float = STOP_SECONDS) -> bool:
        """Lets them finish what they have in hand, for so many seconds; a Ctrl-C meanwhile ends that.

        False if they had to be interrupted.
        """
        try:
            return self._ended_within(patience)
        finally:
            try:
                self._ended_within(INTERRUPT_SECONDS)  # on the second SIGTERM, a supervisor ends its workers at once
            finally:
                for process in self._running:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                self._running.clear()

    def _ended_within(self, seconds: float) -> bool:
        for process in self._running:
            process.terminate()
        deadline = monotonic() + seconds
        try:
            for process in self._running:
                process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self) -> bool:
        """Starts them with the code as it is now. False if something had to be interrupted for that."""
        in_time = self.stop(RELOAD_SECONDS)
        self.start()
        return in_time

    @property
    def complete(self) -> bool:
        """Whether both are running. One that is not has said why."""
        return all(process.poll() is None for process in self._running)
