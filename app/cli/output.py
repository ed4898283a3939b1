"""How the commands speak: tables and colours on a terminal, JSON for scripts, errors on stderr."""

import json
import shutil
import sys
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

# A line stays a line: a terminal wraps it by itself, and everything else wants it whole.
console = Console(soft_wrap=True, highlight=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

STATE_STYLES = {"queued": "cyan", "running": "blue", "retrying": "yellow", "done": "green", "dead": "red"}
LEVEL_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}
SHORT_ID_LENGTH = 12
"""Digits of an id that tell one event from another, for people."""
_UNBOUNDED = 1000
"""Columns of what is not a terminal: there a row is a line, so that grep and awk work."""


def accept_any_encoding() -> None:
    """What the terminal or the pipe cannot show is shown escaped, and is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message for a person."""
    errors.print(message, style="red", markup=False)
    sys.exit(code)


def print_json(value: Any) -> None:
    """One JSON document on standard output; in ASCII where that takes nothing else."""
    typer.echo(_encodable(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(), indent=2))


def print_line(value: Any) -> None:
    """One JSON value in one line on standard output, at once; in ASCII where that takes nothing else."""
    typer.echo(_encodable(orjson.dumps(value).decode()))


def _encodable(text: str, indent: int | None = None) -> str:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(orjson.loads(text), indent=indent)
    return text


def print_table(table: Table) -> None:
    """A table: fitted to the terminal, at its full width elsewhere."""
    target = console if console.is_terminal else Console(width=_UNBOUNDED, highlight=False, emoji=False)
    target.print(table, soft_wrap=False)


def plain(text: str) -> str:
    """A text of unknown origin: no markup, and nothing that a terminal would obey."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text))


def program() -> str:
    """How this program is called from here, for hints that can be pasted."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m app"
    if shutil.which(called.name) == str(called):
        return called.name
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def iso(seconds: float | None) -> str | None:
    """A time for scripts: ISO 8601, UTC, milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(seconds: float) -> str:
    """A time for people: local, to the second, with its zone."""
    return datetime.fromtimestamp(int(seconds), UTC).astimezone().isoformat(" ", "seconds")


def zone(seconds: float) -> str:
    """The local zone at a time: what it is ahead of UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).astimezone().isoformat()[len("2026-11-25T09:00:00") :]


def precise(seconds: float) -> str:
    """A time for people: local, to the millisecond, with its zone."""
    milliseconds = round(seconds * 1000)
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)
    return moment.astimezone().isoformat(" ", "milliseconds")
