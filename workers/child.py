"""A process forked by the supervisor, and what belongs to it: it leads a process group of its own."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

from workers.status import At, Status
from workers.stopping import SIGNALS

LONGEST_START_SECONDS = 120.0
"""How long a process may take to import the handlers. They may be large; one that waits for ever is killed."""

Role = Callable[[Status], None]
"""What a forked process has to do."""


class Forked(BaseException):
    """Raised in a forked process: carries what it has to do out of the supervisor's code, which is not its own.

    Only outside of that does it run, to its end and the interpreter's: with atexit functions and threads that are
    waited for, as libraries expect it of a script.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work


@dataclass
class Child:
    """A forked process, as its parent has it."""

    name: str
    pid: int
    status: Status
    started: float = field(default_factory=monotonic)
    was_stopped: bool = False
    """Whether it has been asked to end."""

    seen: At | None = None
    noted: At | None = None
    """The handler that ran at the last tick, and the one that is recorded as running."""

    @property
    def overdue(self) -> str:
        """Why it has to be killed; empty if it has not."""
        if not self.status.is_ready:
            return "it did not get ready" if monotonic() > self.started + LONGEST_START_SECONDS else ""
        if monotonic() <= self.status.kill_at:
            return ""
        return "it did not end its handler" if self.status.has_event else "it did not end"

    def terminate(self) -> None:
        """Asks it to end: itself alone, and not what its handlers have started."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and all of its group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str | None:
        """How it has ended; None if it has not. What is left of its group is ended too."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return "nobody knows how"
        if pid == 0:
            return None
        self.kill()
        return _reason(os.waitstatus_to_exitcode(status))


def fork(name: str, role: Role) -> Child:
    """Forks a process, in which Forked is raised.

    Raises:
        OSError: there cannot be another process now.
    """
    status = Status.shared()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()  # or both processes would write what is in its buffer
    # A signal that comes before the child has handlers of its own must neither get lost nor run ours in it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _begin()
            raise Forked(partial(role, status))
        with suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(pid, pid)
        return Child(name, pid, status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Makes a forked process one like any other."""
    os.setpgid(0, 0)  # a Ctrl-C reaches the supervisor only, which passes it on as one SIGTERM
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(OSError), Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # who reads from a terminal that is not its own is stopped


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
