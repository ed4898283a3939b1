"""What handlers print becomes log lines, with the id of their event: a line of text among JSON is read by nobody.

Printing neither blocks nor fails, as little as logging does: what is written here goes where log lines go
(`app/ops/streams.py`).
"""

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TextIO

LONGEST_BYTES: Final = 16 * 1024
"""Of a line; what is longer is cut into several, so that who never ends a line does not fill the memory."""

Render = Callable[[str, str], str]
"""Makes a log line of what was printed and where to: `stdout` or `stderr`."""


class Printed(io.TextIOWrapper):
    """A text stream whose lines are logged."""

    def __init__(self, name: str, beneath: TextIO, render: Render) -> None:
        self.beneath = beneath
        """Where log lines go."""
        self._lines = _Lines(name, self, render)
        self._is_used = False
        super().__init__(self._lines, encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[arg-type]

    def write(self, text: str, /) -> int:
        self._is_used = True
        return super().write(text)

    def finish(self) -> None:
        """Logs a line that has been begun and not ended."""
        if not self._is_used and not self._lines.begun:  # most handlers print nothing: they need not pay for it
            return
        self._is_used = False
        with suppress(Exception):  # a handler may have closed or detached it
            self.flush()
            self._lines.finish()


class _Lines(io.RawIOBase):
    def __init__(self, name: str, text: Printed, render: Render) -> None:
        super().__init__()
        self._name = name
        self._text = text
        self._render = render
        self.begun = b""

    def write(self, data: Any, /) -> int:
        taken = bytes(data)
        with suppress(Exception):  # a print must not fail its handler
            *lines, self.begun = (self.begun + taken).split(b"\n")
            for line in lines:
                self._log(line)
            if len(self.begun) > LONGEST_BYTES:
                self.finish()
        return len(taken)

    def finish(self) -> None:
        begun, self.begun = self.begun, b""
        if begun:
            self._log(begun)

    def _log(self, line: bytes) -> None:
        for start in range(0, len(line) or 1, LONGEST_BYTES):
            text = line[start : start + LONGEST_BYTES].decode("utf-8", "backslashreplace")
            self._text.beneath.write(self._render(text, self._name) + "\n")

    def close(self) -> None:
        """Nothing: logging goes on when a handler closes `sys.stdout`."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._text.beneath.isatty()

    def fileno(self) -> int:
        return self._text.beneath.fileno()


def take(render: Render) -> None:
    """From here on, what this process prints is logged to standard output."""
    out = beneath(sys.stdout)
    sys.stdout, sys.stderr = (Printed(name, out, render) for name in ("stdout", "stderr"))


def beneath(stream: TextIO) -> TextIO:
    """Where log lines go that are meant for a stream."""
    return stream.beneath if isinstance(stream, Printed) else stream


def finish() -> None:
    """Logs the lines that have been begun and not ended, when a handler ends."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Printed):
            stream.finish()
