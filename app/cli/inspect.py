"""`jobhook events`, `event` and `replay`: look at what was recorded, and put it back to work."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from time import time
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.output import STATE_STYLES, console, errors, iso, local, precise, print_json
from app.config import load_settings, parse_duration
from app.errors import EventNotFound
from app.inbox import STATES, Inbox, Record, connect

SCAN_LIMIT = 20_000
"""Events looked at for one listing: bounds the time of a search that finds little."""

_OUTCOME_STYLES = {"done": "green", "retry": "yellow", "dead": "red", "crashed": "red"}

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Since = Annotated[str | None, typer.Option(help="Received within this time: 90s, 2h, 7d.")]


def events(
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(STATES)}.")] = None,
    type: Annotated[str | None, typer.Option(help="Pattern of the type, such as invoice.*")] = None,
    since: Since = None,
    search: Annotated[str | None, typer.Option(help="Text in the body, or in the event's or resource's id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to show.")] = 50,
    as_json: Json = False,
) -> None:
    """List events, the most recently active first."""
    if state and state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--state")
    found = list(islice(_select(_inbox(), state, type, _earliest(since), search), limit))
    if as_json:
        print_json([_summary(record) for record in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "received", "type", "resource", "state", "attempts", "deliveries"):
        table.add_column(column, no_wrap=column == "id")
    for record in found:
        table.add_row(
            record.id,
            local(record.received),
            escape(record.type),
            escape(record.meta.get("resource") or ""),
            _state(record),
            str(record.token),
            str(1 + record.redelivered),
        )
    console.print(table if found else "No events.")


def event(
    id: Annotated[str, typer.Argument(help="The event's id, or its first digits.")],
    body: Annotated[bool, typer.Option("--body", help="Show the body too.")] = False,
    as_json: Json = False,
) -> None:
    """Show the whole life of an event."""
    inbox = _inbox()
    record = inbox.get(inbox.find(id))
    if as_json:
        shown = {"body": record.body.decode("utf-8", "replace")} if body else {}
        print_json(_details(record) | shown)
        return
    for line in life(record):
        console.print(line, soft_wrap=True)
    if body:
        console.print("\n[bold]body[/]")
        console.print(record.body.decode("utf-8", "replace"), markup=False)


def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of events, or their first digits.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead events.")] = False,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Put events back to work. A dead one goes on where it stopped; a done one starts anew."""
    if bool(ids) == dead:
        raise typer.BadParameter("give ids, or --dead")
    inbox = _inbox()
    if dead:
        chosen = [record.id for record in _select(inbox, "dead", None, _earliest(since), None)]
    else:
        chosen = [inbox.find(id) for id in ids or ()]
    before = inbox.replay(chosen) if chosen else {}
    if missing := [id for id, state in before.items() if state is None]:
        raise EventNotFound(f"There is no record of event {', '.join(missing)}.")
    if as_json:
        print_json([{"id": id, "was": state, "replayed": _is_replayed(state)} for id, state in before.items()])
        return
    for id, state in before.items():
        if _is_replayed(state):
            console.print(f"{id} was {state}, is queued")
        else:
            errors.print(f"{id} is {state} anyway: left alone", style="yellow")
    if not before:
        console.print("Nothing to replay.")


def life(record: Record) -> Iterator[str]:
    """The history of an event, a line each, with rich's markup."""
    meta = record.meta
    yield f"[bold]{record.id}[/]  {escape(record.type)}  {_state(record)}"
    if record.conflict_of:
        yield f"  [yellow]conflict[/]: the same id as {record.conflict_of}, other bytes"
    if meta.get("event_id"):
        yield f"  event id {escape(meta['event_id'])}"
    if meta.get("resource"):
        yield f"  resource {escape(meta['resource'])}"
    yield _moment(
        record.received,
        "received",
        f"{len(record.body)} bytes from {meta.get('client')}, signed with the {meta.get('key')} key",
    )
    yield _moment(record.received, "queued", "in the same step")
    if record.redelivered_last:
        yield _moment(record.redelivered_last, "redelivered", f"{record.redelivered} times; the last time then")
    for entry in record.attempts:
        yield _moment(entry["started"] / 1000, "handled", f"attempt {entry['attempt']}, by {entry['worker']}")
        took = f"after {entry['ended'] - entry['started']} ms"
        yield _moment(entry["ended"] / 1000, entry["outcome"], took, _OUTCOME_STYLES[entry["outcome"]])
        if error := entry.get("error"):
            yield f"      [red]{escape(error['type'])}[/]: {escape(error['message'])}"
            yield from (f"      [dim]{escape(line)}[/]" for line in (error.get("traceback") or "").splitlines())
    if record.state == "running" and record.started:
        yield _moment(record.started, "running", f"attempt {record.attempt}, by {record.worker}", "blue")
    for name, _ in record.steps:
        yield f"  finished: {escape(name)}"


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


def _select(inbox: Inbox, state: str | None, type: str | None, earliest: float, search: str | None) -> Iterator[Record]:
    wanted = search.encode() if search else None
    for record in islice(inbox.newest([state] if state else STATES), SCAN_LIMIT):
        if record.received < earliest or (type and not fnmatchcase(record.type.casefold(), type.casefold())):
            continue
        names = (record.id, record.meta.get("resource"), record.meta.get("event_id"))
        if wanted and wanted not in record.body and search not in names:
            continue
        yield record


def _summary(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "type": record.type,
        "resource": record.meta.get("resource"),
        "state": record.state,
        "received": iso(record.received),
        "attempts": record.token,
        "deliveries": 1 + record.redelivered,
        "conflict_of": record.conflict_of,
    }


def _details(record: Record) -> dict[str, Any]:
    times = {"started": None, "ended": None}
    return _summary(record) | {
        "meta": record.meta,
        "redelivered_last": iso(record.redelivered_last),
        "steps": dict(record.steps),
        "history": [entry | {name: iso(entry[name] / 1000) for name in times} for entry in record.attempts],
    }


def _is_replayed(state: str | None) -> bool:
    return state in {"done", "dead", "retrying"}


def _state(record: Record) -> str:
    return f"[{STATE_STYLES[record.state]}]{record.state}[/]"


def _moment(seconds: float, what: str, details: str, style: str = "bold") -> str:
    return f"  {precise(seconds)}  [{style}]{what:<12}[/] {details}"
