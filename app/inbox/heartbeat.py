"""Which supervisors are at work: each beats every second, so that a silent one is missed by name.

What is recorded is for people, in `/readyz` and `jobhook doctor`; no work depends on it.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from redis.exceptions import RedisError

from app.inbox.inbox import Inbox


class Heartbeat:
    """That of the supervisor in this process."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._host = socket.gethostname()
        self._name = f"{self._host}:{os.getpid()}"
        self._known = False

    def beat(self) -> None:
        """Says that it is at work; the first time also which others of this machine have ended without a word.

        Raises:
            RedisError: the server cannot be told.
        """
        gone = () if self._known else self._ended(self._inbox.stats().supervisors)
        self._inbox.beat(self._name, gone)
        self._known = True

    def leave(self) -> None:
        """Says that it stops in good order, if the server can be told."""
        with suppress(RedisError):
            self._inbox.leave(self._name)

    def _ended(self, names: Iterable[str]) -> list[str]:
        """Supervisors that were killed here and have a successor by now: nobody has to miss them."""
        return [name for name in names if self._is_here(name) and not _runs(int(name.rpartition(":")[2]))]

    def _is_here(self, name: str) -> bool:
        host, _, pid = name.rpartition(":")
        return host == self._host and pid.isdecimal()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    return True
