"""Standard output and error that never block and never fail.

Whoever reads them may stall, go away or run out of disk, and a write that waits for that would hold up the whole
process: deliveries without an answer, handlers that hit their timeout in a `print`. So `guard` puts a queue before
each of the two, and a thread of its own writes what is in it. Lines that find the queue full, or that cannot be
written, are dropped and counted; the count is written as soon as lines can be written again.

A process that is killed loses what it has printed in the last `GATHER_SECONDS`.
"""

import atexit
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TextIO

MOST_WAITING_BYTES: Final = 4 * 1024**2
"""What waits to be written: 20 s of deliveries at 1,000 a second."""
GATHER_SECONDS: Final = 0.005
"""How long the thread gathers lines before it writes them: one write for many costs less than one for each."""
DRAIN_SECONDS: Final = 1.0
"""How long a process that ends waits for what is still to be written."""
RETRY_SECONDS: Final = 0.05
"""Between tries to write to something that is full and does not block."""

_NEWLINE = ord("\n")

Announce = Callable[[int], str]
"""Makes the line that says how many were dropped."""


class Stream(io.RawIOBase):
    """The writing end of one of the two, as the buffer under a text stream. Writing to it queues."""

    def __init__(self, name: str, fd: int | None) -> None:
        super().__init__()
        self._name = name
        self._fd = fd
        self._target = None if fd is None else os.dup(fd)  # stays what it is, whatever is done to `fd` later
        self.dropped: int
        """Lines dropped since the process began."""
        self.untold: int
        """Those of them since it was last possible to write."""
        self._begin()

    def _begin(self) -> None:
        """Also in a forked child: the thread is not there, and what waits is the parent's to write."""
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.RLock()  # reentrant: a signal handler may print as well
        self._started = self._undrained = self._cut = False
        self.dropped = self.untold = 0

    def write(self, data: Any, /) -> int:
        """Queues it, or drops it if too much is waiting."""
        taken = bytes(data)
        if self._target is None or self._waiting + len(taken) > MOST_WAITING_BYTES:
            self._drop(taken)
        else:
            with self._lock:
                self._waiting += len(taken)
                self._queue.put(taken)
            self._undrained = True
            if not self._started:
                self._start()
        return len(taken)

    def flush(self) -> None:
        """Nothing, because it may not block; but once the main thread has ended, the process ends with this."""
        if not threading.main_thread().is_alive():
            self.drain()

    def drain(self) -> None:
        """Waits until what is queued has been written, but no longer than `DRAIN_SECONDS`."""
        if self._undrained:
            self._undrained = False
            written = threading.Event()
            self._queue.put(written)
            written.wait(DRAIN_SECONDS)

    def close(self) -> None:
        """Nothing: logging goes on when a handler closes `sys.stdout`."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._target is not None and os.isatty(self._target)

    def fileno(self) -> int:
        if self._fd is None:
            raise io.UnsupportedOperation(f"{self._name} was closed when the process began")
        return self._fd

    def _start(self) -> None:
        with self._lock:
            if self._started:  # by another thread, or further down the stack, where a signal handler has come between
                return
            self._started = True
            try:
                threading.Thread(target=self._write_all, name=f"writer of {self._name}", daemon=True).start()
                atexit.register(self.drain)  # `flush` comes too late, except in a child forked by multiprocessing
            except BaseException:  # a handler's time may be up
                self._started = False
                raise

    def _write_all(self) -> None:
        while True:
            batch = [self._queue.get()]
            time.sleep(GATHER_SECONDS)
            with suppress(Empty):
                while True:
                    batch.append(self._queue.get_nowait())
            with self._lock:
                self._waiting = 0  # not less what was taken: a signal handler that prints may spoil the sum
            self._write_out(b"".join(piece for piece in batch if isinstance(piece, bytes)))
            for piece in batch:
                if isinstance(piece, threading.Event):
                    piece.set()

    def _write_out(self, data: bytes) -> None:
        if left := self._put(data):
            self._drop(left)
        elif self.untold:
            with self._lock:
                untold, self.untold = self.untold, 0
            if self._put(f"{_announce(untold)}\n".encode()):
                with self._lock:
                    self.untold += untold

    def _put(self, data: bytes) -> bytes:
        """Writes it. Returns what could not be written."""
        assert self._target is not None  # noqa: S101 - nothing is queued then
        left = memoryview(b"\n" + data if self._cut else data)
        while left:
            try:
                written = os.write(self._target, left)
            except BlockingIOError:  # somebody has set O_NONBLOCK on a file description that we share with them
                time.sleep(RETRY_SECONDS)
            except OSError:  # the disk is full, the reader has gone
                return bytes(left)
            else:
                self._cut = left[written - 1] != _NEWLINE
                left = left[written:]
        self._cut = False
        return b""

    def _drop(self, data: bytes) -> None:
        lines = data.count(b"\n") or 1
        with self._lock:
            self.dropped += lines
            self.untold += lines
        if _count:
            _count(lines)


_guarded: dict[str, Stream] = {}
_announce: Announce = "{} lines dropped: they could not be written".format
_count: Callable[[int], None] | None = None


def guard() -> None:
    """From here on, nothing that is printed or logged in this process and its forks blocks or fails.

    Done again it changes nothing. What is not the real standard output (a test's, say) is left alone.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        current: TextIO | None = getattr(sys, name)
        if name not in _guarded and _is_real(current, number):
            stream: Any = Stream(name, None if current is None else number)  # takes all it is given, as a buffer does
            _guarded[name] = stream
            encoding = current.encoding if current else "utf-8"
            text = io.TextIOWrapper(stream, encoding=encoding, errors="backslashreplace", line_buffering=True)
            setattr(sys, name, text)


def announce_by(made: Announce) -> None:
    """Sets how the line is written that says how many were dropped."""
    global _announce  # noqa: PLW0603 - as logging, it is one for the process
    _announce = made


def count_dropped_by(count: Callable[[int], None]) -> None:
    """Sets what is to be called with the number of lines whenever some are dropped; what was dropped before, at once.

    From any thread, also in the middle of anything.
    """
    global _count  # noqa: PLW0603 - one for the process as well
    _count = count
    if lines := dropped():
        count(lines)


def dropped() -> int:
    """Lines of this process that could not be written since it began."""
    return sum(stream.dropped for stream in _guarded.values())


def untold() -> int:
    """Those of them since it was last possible to write: 0 unless a reader is stalled or a disk full now."""
    return sum(stream.untold for stream in _guarded.values())


def _is_real(stream: TextIO | None, number: int) -> bool:
    if stream is None:  # it was closed when Python began
        return True
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


def _begin_in_child() -> None:
    for stream in _guarded.values():
        stream._begin()


os.register_at_fork(after_in_child=_begin_in_child)
