"""Put on the path of a process, this makes what it does fail for as long as a file is there.

SABOTAGE names the file: what it says is what fails, `fork`, `waitpid`, or `recv`, with which the supervisor waits.
"""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _failing(name: str, function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        order = Path(os.environ.get("SABOTAGE", ""))
        if order.is_file() and order.read_text() == name:
            raise error
        return function(*arguments)

    return call


os.fork = _failing("fork", os.fork, BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
os.waitpid = _failing("waitpid", os.waitpid, MemoryError())


class _Socket(socket.socket):
    recv = _failing("recv", socket.socket.recv, OSError(errno.EBADF, "Bad file descriptor"))


socket.socket = _Socket  # type: ignore[misc]
