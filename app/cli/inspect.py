"""`jobhook events`, `event` and `replay`: look at what was recorded, and put it back to work."""

from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.cli import audit, bulk
from app.cli.bulk import Limits, Most, Rate, Yes
from app.cli.documents import BASE64, bodies, details, last_error
from app.cli.filters import filtered, tell_how_far
from app.cli.life import life, state_of
from app.cli.output import (
    SHORT_ID_LENGTH,
    console,
    errors,
    iso,
    local,
    plain,
    print_json,
    print_line,
    print_table,
    program,
    zone,
)
from app.config.sources import load_settings
from app.errors import EventNotFound
from app.inbox.audit import in_words
from app.inbox.filter import Filter
from app.inbox.inbox import PREFIX, Inbox, connect
from app.inbox.paused import EVERYTHING
from app.inbox.record import Record, errors_of
from app.inbox.search import PAGE, Search

SCAN_LIMIT = 20_000
"""Events looked at for one listing: bounds the time of a search that finds little."""

LOOK = 10_000
"""Events looked at for one list: some 100 ms, should nothing fit."""

_REPLAYED = ("done", "dead", "retrying")
"""The states from which an event is put back to work."""
_WIDE_ENOUGH = 110
"""Columns of a terminal from which on full ids and years fit."""
_SPARED = ("tried", "sent")
"""Columns that make room for errors on a narrow terminal."""
_GAP = 2
"""Columns of a terminal from one column of the list to the next."""
_LEAST_OF_AN_ERROR = 8
_SHORT = slice(len("2026-"), len("2026-11-25 09:00:00"))
"""Of a time, what fits a narrow terminal: its zone is in the heading."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonLines = Annotated[bool, typer.Option("--json", help="Print JSON, a line for each event, with all it has.")]


@filtered
def events(
    chosen: Filter,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to show.")] = 50,
    look: Annotated[int, typer.Option(min=1, help="The most to look at for them.")] = LOOK,
    as_json: JsonLines = False,
) -> None:
    """List events, the newest first; of one or two states alone, those that came into it last."""
    inbox = open_inbox()
    search = Search(inbox.redis, chosen)
    if as_json:
        tell_broken(inbox)
        number = 0
        while number < limit and not search.is_over and search.looked < look:
            for record in search.page(min(PAGE, limit - number), look - search.looked).records:
                print_line(details(record))
                number += 1
    else:
        page = search.page(limit, look)
        number = len(page.records)
        tell_broken(inbox)
        if page.records:
            _list(page.records)
        elif search.is_over:
            console.print("No events." if not chosen.words() else "No events that fit.")
        else:
            console.print("None of the events looked at fits.")
    if number < limit:
        tell_how_far(search)


def _list(records: list[Record]) -> None:
    narrow = console.is_terminal and console.width < _WIDE_ENOUGH
    failures = [last_error(record) for record in records]
    has_failures = any(failures)
    rows = [
        {
            "id": record.id[:SHORT_ID_LENGTH] if narrow else record.id,
            "received": local(record.received)[_SHORT] if narrow else local(record.received),
            "type": record.type,
            "resource": record.meta.get("resource") or "",
            "state": record.state,
            "tried": str(len(record.attempts)),
            "sent": str(1 + record.redelivered),
        }
        for record in records
    ]
    columns = [name for name in rows[0] if not (narrow and has_failures and name in _SPARED)]
    headings = {"received": f"received ({zone(records[0].received)})"} if narrow else {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    used = 0
    for name in columns:
        heading = headings.get(name, name)
        table.add_column(heading, no_wrap=True)
        used += max(map(cell_len, [heading, *(row[name] for row in rows)])) + _GAP
    room = max(console.width - used, _LEAST_OF_AN_ERROR) if console.is_terminal else None
    if has_failures:
        table.add_column("error", no_wrap=True)
    for record, row, failure in zip(records, rows, failures, strict=True):
        cells = [state_of(record) if name == "state" else escape(row[name]) for name in columns]
        table.add_row(*cells, *([_shortened(failure or "", room)] if has_failures else []))
    print_table(table)


def _shortened(failure: str, room: int | None) -> Text:
    text = Text.from_markup(plain(failure))
    if room is not None:
        text.truncate(room, overflow="ellipsis")
    return text


def event(
    id: Annotated[str, typer.Argument(help="The event's id, or its first digits.")],
    body: Annotated[bool, typer.Option("--body", help="Show the body too.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show whole tracebacks.")] = False,
    as_json: Json = False,
) -> None:
    """Show the whole life of an event."""
    inbox = open_inbox()
    record = inbox.get(inbox.find(id))
    due = _due(inbox, record)
    kept_waiting = _kept_waiting(inbox, record)
    if as_json:
        more = {"next_attempt": iso(due), "kept_waiting": kept_waiting}
        print_json(details(record) | more | (bodies(record) if body else {}))
        return
    for line in life(record, due, whole=traceback):
        console.print(line)
    if kept_waiting:
        console.print(f"  [yellow]not worked on: {plain(kept_waiting)}[/]")
    elif why := _waits_for(inbox, record):
        console.print(f"  {why}", style="yellow")
    if not traceback and any("own" in error for entry in record.attempts for error in errors_of(entry)):
        console.print(f"  [dim]Whole tracebacks: {program()} event {record.id[:SHORT_ID_LENGTH]} --traceback[/]")
    if record.state == "dead":
        console.print(f"  [dim]Put it back to work: {program()} replay {record.id[:SHORT_ID_LENGTH]}[/]")
    for name, text in bodies(record).items() if body else ():
        if name.endswith(BASE64):
            continue
        console.print(f"\n[bold]{name.replace('_', ' ')}[/]")
        console.print("It is too long to be kept." if text is None else plain(text))


@filtered
def replay(
    chosen: Filter,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of events, or their first digits.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead events, without asking.")] = False,
    yes: Yes = False,
    most: Most = None,
    rate: Rate = None,
    as_json: Json = False,
) -> None:
    """Put events back to work. A dead one goes on where it stopped; a done one starts anew."""
    is_filtered = bool(chosen.words())
    if bool(ids) == (dead or is_filtered):
        what = "goes with --dead or alone, not with ids" if ids and is_filtered and not dead else ""
        hint = f"--{next(iter(chosen.words()))}" if what else None
        raise typer.BadParameter(what or "give ids, or --dead, or a filter", param_hint=hint)
    inbox = open_inbox()
    if ids:
        found, which = [inbox.find(id) for id in ids], ", ".join(ids)
    else:
        chosen = replace(chosen, state=("dead",)) if dead else chosen
        which = in_words(chosen)
        fitting = bulk.find(inbox, chosen, lambda one: _is_replayed(one.state) and not one.emptied, most)
        bulk.ask("put back to work", chosen, fitting, yes=yes or dead)
        found = list(fitting)
    done = bulk.change(
        found, lambda some: {id: state or "" for id, state in inbox.replay(some).items()}, Limits(most, rate), "replay"
    )
    replayed = sum(map(_is_replayed, done.results.values()))
    if found:
        audit.record(inbox.redis, "replay", which, replayed, done.note)
    if as_json:
        results = done.results.items()
        print_json([{"id": id, "was": state or None, "replayed": _is_replayed(state)} for id, state in results])
    elif ids or dead:
        _tell(done.results)
    else:
        bulk.tell(done, "put back to work", _REPLAYED)
    if done.was_interrupted:
        raise typer.Exit(bulk.EXIT_INTERRUPTED)
    if (ids or dead) and (missing := [id for id, state in done.results.items() if not state]):
        raise EventNotFound(f"There is no record of event {', '.join(missing)}: never received, or past its retention.")


def tell_broken(inbox: Inbox) -> None:
    """Says how many events are left out because they cannot be read."""
    if broken := len(inbox.broken()):
        records = "1 record that" if broken == 1 else f"{broken} records that"
        errors.print(f"Without {records} cannot be read. See: {program()} doctor", style="yellow")


def _waits_for(inbox: Inbox, record: Record) -> str | None:
    """Why an event that is open does not run, where its history does not say so."""
    if record.state == "queued":
        if not inbox.stats().supervisors:
            return f"waits for workers: none are running. See: {program()} doctor"
        first = inbox.redis.zscore(PREFIX + "queued", record.id) or 0
        before: Any = inbox.redis.zrange(PREFIX + "queued", "-inf", f"({first}", byscore=True, offset=0, num=SCAN_LIMIT)
        return f"waits for a worker; events before it: {len(before)}"
    if record.state == "retrying" and record.resource:
        holder: Any = inbox.redis.get(f"{PREFIX}turn:{record.resource}")
        if holder and inbox.redis.zscore(f"{PREFIX}line:{record.resource}", record.id):
            return f"waits for its turn: event {holder.decode()} of {plain(record.resource)} is before it"
    return None


def _tell(before: dict[str, str]) -> None:
    """Says what became of each event that was to be replayed."""
    for id, state in before.items():
        if _is_replayed(state):
            console.print(f"{id} was {state}, is queued")
        elif state:
            errors.print(f"{id} is {state} anyway: left alone", style="yellow")
    if not before:
        console.print("Nothing to replay.")


def open_inbox() -> Inbox:
    """The inbox that the settings name."""
    settings = load_settings()
    return Inbox(connect(settings), settings)


def _due(inbox: Inbox, record: Record) -> float | None:
    """When an event that waits for its next attempt gets it."""
    score = inbox.redis.zscore(PREFIX + "retrying", record.id)
    return score / 1000 if score else None


def _is_replayed(state: str | None) -> bool:
    return state in _REPLAYED


def _kept_waiting(inbox: Inbox, record: Record) -> str | None:
    """Why no worker takes an event, though it is unfinished: what keeps all of them waiting.

    A handler that waits alone is in the record itself.
    """
    if record.state not in {"queued", "retrying"}:
        return None
    stats = inbox.stats()
    if stats.suspended:
        return "`rq suspend` is on"
    return next((f"everything is paused by {one.by}" for one in stats.paused if one.what == EVERYTHING), None)
