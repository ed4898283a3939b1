"""What a worker tells its supervisor, in memory that they share."""

import ctypes
import math
import mmap


class Status(ctypes.Structure):
    """Written by the worker, read by the supervisor, also when the worker has died."""

    _fields_ = (
        ("kill_at", ctypes.c_double),
        ("is_ready", ctypes.c_bool),
        ("has_event", ctypes.c_bool),
        ("has_told", ctypes.c_bool),
    )

    kill_at: float
    """When to kill this worker, by the monotonic clock; infinite for never."""
    is_ready: bool
    """Whether it has imported the handlers."""
    has_told: bool
    """Whether it has said why it cannot start."""
    has_event: bool
    """Whether handlers may have begun whose end is not recorded yet."""

    @classmethod
    def shared(cls) -> "Status":
        """A status that processes forked from now on share."""
        status = cls.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
        status.kill_at = math.inf
        return status
