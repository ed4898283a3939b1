"""The pulse of a supervisor: a file that it writes at every tick, for `jobhook alive` to look at.

It tells whether the process itself goes on, whatever Redis and other supervisors do. The file is in memory where
that can be had, so that it works in a container whose file system is read-only. Its owner holds a lock on it as long
as it lives: what a killed supervisor has left behind is known by the lock that nobody holds.

Supervisors on one machine may belong to several deployments: each looks after its own, which are those on its Redis.
"""

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ALIVE_WITHIN_SECONDS = 10.0
"""A supervisor ticks every second; a tick during an outage of Redis takes a few."""

_SUFFIX = ".alive"
_CREDENTIALS = re.compile(r"(?<=//)[^/]*@|(?<=password=)[^&]*")


class Pulse:
    """The file, as its owner has it."""

    def __init__(self, redis_url: str) -> None:
        """Begins to beat.

        Raises:
            OSError: no folder can be written.
        """
        for folder in _folders():
            with suppress(OSError):
                self._fd, name = tempfile.mkstemp(prefix="." + _prefix(redis_url), dir=folder)
                break
        else:
            raise OSError(f"none of {', '.join(map(str, _folders()))} can be written")
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.beat()
        # Only now may it be found: a file without a lock would be taken for a dead supervisor's.
        self._file = Path(name).rename(Path(name).with_name(f"{Path(name).name[1:]}{_SUFFIX}"))
        for file in _files(redis_url):
            with suppress(OSError), _opened(file) as fd:
                if _is_abandoned(fd):
                    file.unlink()

    def beat(self) -> None:
        """Says that the owner is alive now."""
        os.pwrite(self._fd, f"{time.monotonic():020.3f} {os.getpid()}\n".encode(), 0)

    def leave_to_parent(self) -> None:
        """In a forked process: keeps it from holding the lock for its parent."""
        os.close(self._fd)

    def end(self) -> None:
        """Removes the file."""
        self._file.unlink(missing_ok=True)
        os.close(self._fd)


class Beat(NamedTuple):
    """The last beat of a supervisor that is there."""

    pid: int
    seconds_ago: float

    @property
    def is_recent(self) -> bool:
        """Whether the supervisor is alive, and not merely there."""
        return abs(self.seconds_ago) <= ALIVE_WITHIN_SECONDS  # in the future: from before the machine was started anew


def beats(redis_url: str) -> list[Beat]:
    """The last beat of each supervisor on this machine that works on this Redis, as far as this user may see it."""
    found = []
    for file in _files(redis_url):
        with suppress(OSError, ValueError), _opened(file) as fd:
            if not _is_abandoned(fd):
                at, pid = os.pread(fd, 64, 0).split()
                found.append(Beat(int(pid), time.monotonic() - float(at)))
    return found


def _folders() -> list[Path]:
    runtime = os.environ.get("RUNTIME_DIRECTORY")  # what systemd has made for the service
    return [*([Path(runtime.split(":")[0])] if runtime else []), Path("/dev/shm"), Path(tempfile.gettempdir())]  # noqa: S108 - created by mkstemp


def _prefix(redis_url: str) -> str:
    """Without the password: what can be guessed could be tried out on a hash of it."""
    return f"jobhook-workers-{hashlib.sha256(_CREDENTIALS.sub('', redis_url).encode()).hexdigest()[:16]}-"


def _files(redis_url: str) -> Iterator[Path]:
    for folder in _folders():
        yield from folder.glob(f"{_prefix(redis_url)}*{_SUFFIX}")


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_abandoned(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
