"""`jobhook audit`: who has changed what by hand; and how the other commands note that."""

from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer
from redis import Redis
from redis.exceptions import RedisError
from rich.table import Table

from app.cli.output import console, errors, iso, local, plain, print_line, print_table
from app.cli.who import who
from app.config.sources import load_settings
from app.inbox.audit import entries, note
from app.inbox.inbox import connect


def audit(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to show.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each entry.")] = False,
) -> None:
    """Show who has changed what by hand, the newest first: replay, discard, erase, pause, resume, admit."""
    with connect(load_settings()) as redis:
        found = list(islice(entries(redis), limit))
    if as_json:
        for entry in found:
            print_line(asdict(entry) | {"at": iso(entry.at)})
        return
    if not found:
        console.print("Nothing has been changed by hand.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("when", "who", "what", "which", "count", "note"):
        table.add_column(column, no_wrap=column in {"when", "what"})
    for entry in found:
        cells = (entry.who, entry.what, entry.which, str(entry.count), entry.note)
        table.add_row(local(entry.at), *map(plain, cells))
    print_table(table)


def record(redis: "Redis", what: str, which: str, count: int, more: str = "") -> None:
    """Notes what a command has done; if that is impossible, says so: it is done all the same."""
    try:
        note(redis, who(), what, which, count, more)
    except RedisError as error:
        errors.print(f"This is not in the audit trail: Redis has refused it ({type(error).__name__}).", style="yellow")
