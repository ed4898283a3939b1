"""`jobhook export`: events as JSON, a line each, for other tools."""

from typing import Annotated

import typer

from app.cli.documents import bodies, details
from app.cli.filters import filtered
from app.cli.inspect import open_inbox, tell_broken
from app.cli.output import print_line
from app.inbox.filter import Filter
from app.inbox.search import Search


@filtered
def export(
    chosen: Filter,
    with_bodies: Annotated[bool, typer.Option("--bodies/--no-bodies", help="With what was delivered, or not.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to export.", show_default="all")] = None,
) -> None:
    """Export events as JSON, one line each with all it has, the newest first. Looks at all there are."""
    inbox = open_inbox()
    tell_broken(inbox)
    for number, record in enumerate(Search(inbox.redis, chosen), start=1):
        print_line(details(record) | (bodies(record) if with_bodies else {}))
        if number == limit:
            break
