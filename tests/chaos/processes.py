"""The processes under fault, kept running as a service manager does, and found by the connections they have."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

from app.cli.embedded import HOST
from tests.chaos.ledger import Interruption, Ledger
from tests.support.processes import family

RESTART_SECONDS = 0.1
"""Between the end of a process and its next start."""
_POLL_SECONDS = 0.02
_ESTABLISHED = "01"
_LOOPBACK = "".join(f"{int(part):02X}" for part in reversed(HOST.split(".")))


class Service:
    """A process that is started again whenever it ends."""

    def __init__(self, start: Callable[..., "subprocess.Popen[bytes]"]) -> None:
        self._start = start
        self._environment: dict[str, str] = {}
        self.process = start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def revive(self) -> None:
        """Starts the process again if it has ended."""
        if self.process.poll() is not None:
            self.process = self._start(**self._environment)

    def restart_with(self, environment: dict[str, str]) -> None:
        """Has it ended in good order; it comes back with more in its environment."""
        self._environment = environment
        self.process.terminate()


class Keeper:
    """Restarts services in a thread of its own."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stopped.wait(_POLL_SECONDS):
            if any(service.process.poll() is not None for service in self.services):
                self._stopped.wait(RESTART_SECONDS)
                for service in self.services:
                    service.revive()


def parent(pid: int) -> int:
    """The process id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def marked(name: str, value: str) -> set[int]:
    """The processes that have a variable of this value in their environment."""
    mark = f"{name}={value}".encode()
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return {pid for pid in found if is_alive(pid)}


def owner(port: int, candidates: list[int]) -> int | None:
    """The first of the candidates, or of their descendants, that has the local end of a TCP connection.

    The topmost is found first: forked workers inherit the connections of their supervisor.
    """
    inode = _inode(port)
    for pid in (pid for candidate in candidates for pid in family(candidate)):
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if inode and str(descriptor.readlink()) == f"socket:[{inode}]":
                        return pid
    return None


def _inode(port: int) -> str | None:
    local = f"{_LOOPBACK}:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == local and fields[3] == _ESTABLISHED:
            return fields[9]
    return None


def kill(ledger: Ledger, pid: int, what: str) -> None:
    """Ends a process with SIGKILL, and notes it as a reason for a step to run again."""
    now = monotonic()
    ledger.interruptions.append(Interruption(what, now, now, pid))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(ledger: Ledger, pids: list[int]) -> Iterator[None]:
    """Processes that stand still for a while, as on a starved machine."""
    begun = monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            ledger.interruptions.append(Interruption("frozen", begun, monotonic(), pid))
