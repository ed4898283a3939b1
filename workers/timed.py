"""A connection of httpcore on which nothing takes longer than to a deadline.

Its own timeouts are those of a single read: an answer that comes byte by byte would keep each of them, for ever.
"""

from collections.abc import Callable
from ssl import SSLContext
from typing import Any

import httpcore


class TimedStream(httpcore.NetworkStream):
    """A stream that is given, before each read and write, how many seconds are left."""

    def __init__(self, stream: httpcore.NetworkStream, seconds_left: Callable[[], float]) -> None:
        self._stream = stream
        self._seconds_left = seconds_left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, at_most(self._seconds_left(), timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, at_most(self._seconds_left(), timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = at_most(self._seconds_left(), timeout)
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._seconds_left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def at_most(left: float, timeout: float | None) -> float:
    """The time-out of one operation, of what is left.

    Raises:
        httpcore.ReadTimeout: nothing is left.
    """
    if left <= 0:
        raise httpcore.ReadTimeout("the time is up")
    return left if timeout is None else min(left, timeout)
