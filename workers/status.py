"""What a worker tells its supervisor, in memory that they share."""

import ctypes
import math
import mmap
from typing import NamedTuple


class At(NamedTuple):
    """A handler that runs."""

    id: str
    token: int
    handler: str


LONGEST_NAME = 400
"""Bytes kept of a handler's name."""


class Status(ctypes.Structure):
    """Written by the worker, read by the supervisor, also when the worker has died."""

    _fields_ = (
        ("id", ctypes.c_char * 40),
        ("token", ctypes.c_longlong),
        ("handler", ctypes.c_char * LONGEST_NAME),
        ("kill_at", ctypes.c_double),
        ("is_ready", ctypes.c_bool),
        ("has_event", ctypes.c_bool),
        ("has_told", ctypes.c_bool),
    )

    id: bytes
    token: int
    handler: bytes
    """The event in hand, its attempt, and the handler that runs; see `enter` and `at`."""
    kill_at: float
    """When to kill this worker, by the monotonic clock; infinite for never."""
    is_ready: bool
    """Whether it has imported the handlers."""
    has_told: bool
    """Whether it has said why it cannot start."""
    has_event: bool
    """Whether handlers may have begun whose end is not recorded yet."""

    def enter(self, id: str, token: int, handler: str) -> None:
        """A handler begins to run."""
        self.id, self.token, self.handler = id.encode(), token, handler.encode("utf-8", "replace")[:LONGEST_NAME]

    @property
    def at(self) -> At | None:
        """Which handler runs of which event; None if none does, or another begins just now."""
        at = At(self.id.decode(), self.token, self.handler.decode("utf-8", "replace"))
        return at if self.has_event and at.id and (self.id.decode(), self.token) == at[:2] else None

    @classmethod
    def shared(cls) -> "Status":
        """A status that processes forked from now on share."""
        status = cls.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
        status.kill_at = math.inf
        return status
