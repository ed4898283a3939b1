"""`jobhook handlers`: which there are, what waits for them, and what nobody wants."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from time import time
from typing import Annotated, Any

import typer
from redis import Redis
from redis.exceptions import RedisError
from rich.markup import escape
from rich.table import Table

from app.cli.inspect import SCAN_LIMIT
from app.cli.output import console, errors, print_json, print_table, program
from app.cli.run import workers_command
from app.config.settings import Settings
from app.config.sources import load_settings
from app.errors import ConfigError
from app.inbox.handlers import waiting, wanted
from app.inbox.inbox import Inbox, connect
from app.units import parse_duration


def handlers_(
    since: Annotated[str, typer.Option(help="How far back to look for types that no handler wants.")] = "7d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show all handlers, what each wants and how much waits for it; and the types that arrive and nobody wants."""
    settings = load_settings()
    try:
        earliest = time() - float(parse_duration(since))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    found = _imported()
    patterns = {entry["handler"]: entry["wants"] for entry in found}
    waits, unwanted = _looked_up(connect(settings), settings, patterns, earliest)
    if as_json:
        known = [entry | {"waiting": waits.get(entry["handler"])} for entry in found]
        print_json({"handlers": known, "unhandled": unwanted})
        return
    _show(found, waits)
    if unwanted:
        console.print(f"\nArrived within {escape(since)}, and no handler wants it:")
        for type, number in unwanted.items():
            console.print(f"  {escape(type)}  {number}", style="yellow")
        console.print(f"[dim]See them: {program()} events --unhandled[/]")


def _imported() -> list[dict[str, Any]]:
    """The handlers, imported by a process of its own, as they run in one.

    Raises:
        ConfigError: they cannot be imported.
    """
    ended = subprocess.run(workers_command("--check"), stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    lines = ended.stdout.decode("utf-8", "replace").strip().splitlines()
    if ended.returncode == 0 and lines:
        found: list[dict[str, Any]] = json.loads(lines[-1])
        return found
    raise ConfigError("\n".join(lines) or f"Importing the handlers ends the process (exit code {ended.returncode}).")


def _looked_up(
    redis: "Redis", settings: Settings, patterns: dict[str, list[str]], earliest: float
) -> tuple[dict[str, int], dict[str, int]]:
    """What waits for each handler, and how many events came of each type that no handler wants."""
    matchers = [wanted(pattern) for texts in patterns.values() for pattern in texts]
    try:
        waits = waiting(redis, patterns)
        received = islice(Inbox(redis, settings).newest(), SCAN_LIMIT)
        types = Counter(record.type for record in received if record.received >= earliest)
    except RedisError as error:
        errors.print(f"What waits is not known: Redis cannot be used ({type(error).__name__}).", style="yellow")
        return {}, {}
    return waits, {
        type: number
        for type, number in types.most_common()
        if not any(pattern.match(type.casefold()) for pattern in matchers)
    }


def _show(found: Iterable[dict[str, Any]], waits: dict[str, int]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("handler", "wants", "at", "options", "waiting"):
        table.add_column(column, no_wrap=not console.is_terminal)
    for entry in found:
        cells = (entry["handler"], ", ".join(entry["wants"]), entry["at"] or "", entry["options"])
        table.add_row(*map(escape, cells), str(waits.get(entry["handler"], "?")))
    if table.row_count:
        print_table(table)
    else:
        console.print("There are no handlers: events are recorded, and count as done.")
