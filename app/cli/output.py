"""How the commands speak: tables and colours on a terminal, JSON for scripts, errors on stderr."""

import sys
from datetime import UTC, datetime
from typing import Any, NoReturn

import orjson
from rich.console import Console

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

STATE_STYLES = {"queued": "cyan", "running": "blue", "retrying": "yellow", "done": "green", "dead": "red"}
LEVEL_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def fail(message: str, code: int) -> NoReturn:
    """Ends the command with a message for a person."""
    errors.print(message, style="red", markup=False)
    sys.exit(code)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def iso(seconds: float | None) -> str | None:
    """A time for scripts: ISO 8601, UTC, milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(seconds: float) -> str:
    """A time for people: local, to the second."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def precise(seconds: float) -> str:
    """A time for people: local, to the millisecond."""
    return local(seconds) + f".{round(seconds * 1000) % 1000:03d}"
