"""Which part of a traceback is the author's own code: neither Python's library, nor installed packages, nor Jobhook."""

import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from traceback import FrameSummary

_HERE = Path(__file__).parent
_HANDLERS = f"{_HERE / 'handlers'}/"
_JOBHOOK = (f"{_HERE}/", f"{_HERE.parent / 'app'}/")
_PYTHON = f"{Path(os.__file__).parent}/"
_INSTALLED = ("/site-packages/", "/dist-packages/")
MOST_FRAMES = 10
"""Shown of an error's own code; the innermost ones, where it was raised."""


def own(error: BaseException) -> list[FrameSummary]:
    """The frames of an error that are the author's own code, the innermost last. None for an error of Jobhook's.

    Handlers may be an installed package: then its own frames are those of that package.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_foreign(frame)]
    written = [frame for frame in frames if not _is_installed(frame)]
    if written or not frames:
        return written
    package = _package(frames[0].filename)
    return [frame for frame in frames if frame.filename.startswith(package)]


def place(error: BaseException) -> str | None:
    """Where an error came from, in the author's own code: file, line and function; None if there is none of it."""
    frames = own(error)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else None


def short(errors: Iterable[BaseException]) -> str:
    """The own frames of an error; of a group, those of its leaves, each with what it says."""
    return "".join("".join(traceback.format_list(own(error)[-MOST_FRAMES:])) for error in errors)


def _is_foreign(frame: FrameSummary) -> bool:
    """Whether it is Python's or Jobhook's."""
    name = frame.filename
    if name.startswith(_HANDLERS):
        return False
    if name.startswith(("<", *_JOBHOOK)):
        return True
    return name.startswith(_PYTHON) and not _is_installed(frame)


def _is_installed(frame: FrameSummary) -> bool:
    return any(folder in frame.filename for folder in _INSTALLED)


def _package(file: str) -> str:
    """The folder of the installed package that a file belongs to, or the file, if it is a module of its own."""
    for folder in _INSTALLED:
        before, found, after = file.rpartition(folder)
        if found:
            return before + found + after.split("/", 1)[0]
    return file
