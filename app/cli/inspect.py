"""`jobhook events`, `event` and `replay`: look at what was recorded, and put it back to work."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from time import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.life import errors_of, life, state_of
from app.cli.output import (
    SHORT_ID_LENGTH,
    console,
    errors,
    iso,
    local,
    plain,
    print_json,
    print_table,
    program,
)
from app.config.sources import load_settings
from app.errors import EventNotFound
from app.inbox.inbox import PREFIX, Inbox, connect
from app.inbox.paused import EVERYTHING
from app.inbox.record import STATES, Record, State
from app.units import parse_duration

SCAN_LIMIT = 20_000
"""Events looked at for one listing: bounds the time of a search that finds little."""

REPLAY_BATCH = 200
"""Events put back to work in one step: about 5 ms of the server's time, so that receivers need not wait."""
_WIDE_ENOUGH = 110
"""Columns of a terminal from which on full ids and years fit."""
_YEAR = len("2026-")


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[str | None, typer.Option(help="Received within this time: 90s, 2h, 7d.")]


def events(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    type: Annotated[str | None, typer.Option(help="Pattern of the type, such as invoice.*")] = None,
    since: Since = None,
    unhandled: Annotated[bool, typer.Option("--unhandled", help="Only those that no handler wanted.")] = False,
    search: Annotated[str | None, typer.Option(help="Text in the body, or in the event's or resource's id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to show.")] = 50,
    as_json: Json = False,
) -> None:
    """List events, the most recently active first."""
    if state and state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")
    inbox = _inbox()
    chosen = _select(inbox, state, type, _earliest(since), search)
    found = list(islice((record for record in chosen if not unhandled or record.is_unhandled), limit))
    if broken := len(inbox.broken()):
        records = "1 record that" if broken == 1 else f"{broken} records that"
        errors.print(f"Without {records} cannot be read. See: {program()} doctor", style="yellow")
    if as_json:
        print_json([_summary(record) for record in found])
        return
    if not found:
        console.print("No events.")
        return
    narrow = console.is_terminal and console.width < _WIDE_ENOUGH
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "received", "type", "resource", "state", "tried", "sent"):
        table.add_column(column, no_wrap=True)
    for record in found:
        table.add_row(
            record.id[:SHORT_ID_LENGTH] if narrow else record.id,
            local(record.received)[_YEAR if narrow else 0 :],
            escape(record.type),
            escape(record.meta.get("resource") or ""),
            state_of(record),
            str(len(record.attempts)),
            str(1 + record.redelivered),
        )
    print_table(table)


def event(
    id: Annotated[str, typer.Argument(help="The event's id, or its first digits.")],
    body: Annotated[bool, typer.Option("--body", help="Show the body too.")] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show whole tracebacks.")] = False,
    as_json: Json = False,
) -> None:
    """Show the whole life of an event."""
    inbox = _inbox()
    record = inbox.get(inbox.find(id))
    due = _due(inbox, record)
    kept_waiting = _kept_waiting(inbox, record)
    if as_json:
        more = {"next_attempt": iso(due), "kept_waiting": kept_waiting}
        print_json(_details(record) | more | (_bodies(record) if body else {}))
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
    for name, text in _bodies(record).items() if body else ():
        console.print(f"\n[bold]{name.replace('_', ' ')}[/]")
        console.print("It is too long to be kept." if text is None else plain(text))


def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of events, or their first digits.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead events.")] = False,
    since: Annotated[str | None, typer.Option(help="With --dead: received within this time: 90s, 2h, 7d.")] = None,
    as_json: Json = False,
) -> None:
    """Put events back to work. A dead one goes on where it stopped; a done one starts anew."""
    if bool(ids) == dead:
        raise typer.BadParameter("give ids, or --dead")
    if since and not dead:
        raise typer.BadParameter("goes with --dead", param_hint="--since")
    inbox = _inbox()
    if dead:
        chosen = [record.id for record in _select(inbox, "dead", earliest=_earliest(since), most=None)]
    else:
        chosen = [inbox.find(id) for id in ids or ()]
    before = {
        id: state
        for start in range(0, len(chosen), REPLAY_BATCH)
        for id, state in inbox.replay(chosen[start : start + REPLAY_BATCH]).items()
    }
    if as_json:
        print_json([{"id": id, "was": state, "replayed": _is_replayed(state)} for id, state in before.items()])
    else:
        _tell(before)
    if missing := [id for id, state in before.items() if state is None]:
        raise EventNotFound(f"There is no record of event {', '.join(missing)}: never received, or past its retention.")


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


def _tell(before: dict[str, State | None]) -> None:
    """Says what became of each event that was to be replayed."""
    for id, state in before.items():
        if _is_replayed(state):
            console.print(f"{id} was {state}, is queued")
        elif state:
            errors.print(f"{id} is {state} anyway: left alone", style="yellow")
    if not before:
        console.print("Nothing to replay.")


def _inbox() -> Inbox:
    settings = load_settings()
    return Inbox(connect(settings), settings)


def _earliest(since: str | None) -> float:
    if since is None:
        return 0.0
    try:
        return time() - float(parse_duration(since))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None


def _due(inbox: Inbox, record: Record) -> float | None:
    """When an event that waits for its next attempt gets it."""
    score = inbox.redis.zscore(PREFIX + "retrying", record.id)
    return score / 1000 if score else None


def _select(
    inbox: Inbox,
    state: str | None = None,
    type: str | None = None,
    earliest: float = 0.0,
    search: str | None = None,
    most: int | None = SCAN_LIMIT,
) -> Iterator[Record]:
    for record in islice(inbox.newest([state] if state else STATES), most):
        if record.received < earliest or (type and not fnmatchcase(record.type.casefold(), type.casefold())):
            continue
        if search is None or _mentions(record, search):
            yield record


def _mentions(record: Record, text: str) -> bool:
    names = (record.id, record.meta.get("resource"), record.meta.get("event_id"))
    return text.encode("utf-8", "surrogateescape") in record.body or any(text in name for name in names if name)


def _summary(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "type": record.type,
        "resource": record.meta.get("resource"),
        "state": record.state,
        "received": iso(record.received),
        "attempts": len(record.attempts),
        "deliveries": 1 + record.redelivered,
        "conflict_of": record.conflict_of,
    }


def _details(record: Record) -> dict[str, Any]:
    times = ("started", "ended")
    return _summary(record) | {
        "meta": record.meta,
        "redelivered_last": iso(record.redelivered_last),
        "rewritten": record.rewritten,
        "rewritten_bytes": record.rewritten_size,
        "steps": dict(record.steps),
        "history": [entry | {name: iso(entry[name] / 1000) for name in times} for entry in record.attempts],
    }


def _bodies(record: Record) -> dict[str, str | None]:
    """The body; and if a redelivery had another one, the last of these, or None if that was not kept."""
    bodies: dict[str, str | None] = {"body": record.body.decode("utf-8", "replace")}
    if record.rewritten:
        other = record.rewritten_body
        bodies["body_of_a_redelivery"] = None if other is None else other.decode("utf-8", "replace")
    return bodies


def _is_replayed(state: str | None) -> bool:
    return state in {"done", "dead", "retrying"}


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
