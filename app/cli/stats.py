"""`jobhook stats`: how many events there are, by state, type and error; how old the oldest is, and what waits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.filters import filtered
from app.cli.inspect import open_inbox
from app.cli.output import STATE_STYLES, console, errors, iso, local, print_json, print_table
from app.inbox import handlers
from app.inbox.filter import Filter, classes_of
from app.inbox.inbox import Inbox
from app.inbox.record import STATES
from app.inbox.search import OF, Search, can_be_counted
from app.units import format_duration

LAST = "24h"
"""What is counted if nothing is said."""


@filtered
def stats(
    chosen: Filter,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count events by state, type and error: those of a filter, or of the last 24 hours."""
    if not chosen.since and not chosen.until:
        chosen = replace(chosen, since=LAST)
    inbox = open_inbox()
    search = Search(inbox.redis, chosen)
    states, types, failed = _counted(inbox, search, chosen)
    oldest = inbox.stats().oldest_open_seconds
    waiting = _waiting(inbox)
    for what in ("type", "error"):
        if inbox.redis.exists(f"{OF}:{what}:"):
            says = f"There are more {what}s than have a set of their own: those beyond are found more slowly."
            errors.print(says, style="yellow")
    since, until = chosen.between(search.now)
    if as_json:
        print_json(
            {
                "filter": chosen.words(),
                "since": iso(since),
                "until": iso(until),
                "looked": search.looked,
                "events": states.total(),
                "states": {state: states[state] for state in STATES},
                "types": dict(types.most_common()),
                "errors": dict(failed.most_common()),
                "oldest_open_seconds": round(oldest, 3),
                "waiting": waiting,
            }
        )
        return
    ends = f" until {local(until)}" if until else ""
    console.print(f"{states.total()} events received since {local(since)}{ends} ({escape(str(chosen))})\n")
    _table("state", {state: states[state] for state in STATES if states[state]}, STATE_STYLES)
    _table("type", dict(types.most_common()))
    _table("error, and how many events have had it", dict(failed.most_common()))
    _table("waiting for its handler", waiting)
    console.print(f"Oldest open event: {format_duration(float(round(oldest)))}" if oldest else "No event is open.")


def _counted(inbox: Inbox, search: Search, chosen: Filter) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """The events by state, by type, and by the classes of their errors; of the last, an event may have several."""
    states: Counter[str] = Counter()
    types: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    if not can_be_counted(chosen):
        for record in search:
            states[record.state] += 1
            types[record.type] += 1
            failed.update(classes_of(record))
        return states, types, failed
    for (state, type), number in search.count().items():
        states[state] += number
        types[type] += number
    for record in Search(inbox.redis, replace(chosen, error="*")):
        failed.update(classes_of(record))
    return states, types, failed


def _waiting(inbox: Inbox) -> dict[str, int]:
    """The handlers that open events tell of, and how many events each; of many open events, the oldest."""
    return handlers.vanished(inbox.redis, frozenset())


def _table(what: str, rows: Mapping[str, Any], styles: Mapping[str, str] | None = None) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(what)
    table.add_column("events", justify="right")
    for name, number in rows.items():
        style = (styles or {}).get(name)
        table.add_row(f"[{style}]{name}[/]" if style else escape(name), str(number))
    print_table(table)
    console.print()
