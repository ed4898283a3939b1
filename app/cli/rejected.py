"""`jobhook rejected`: look at deliveries whose signature did not verify, and take in those that now do."""

import asyncio
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

import typer
from redis import Redis
from rich.table import Table

from app.cli import audit
from app.cli.output import console, errors, iso, local, plain, precise, print_json, print_table, program
from app.cli.who import who
from app.config.settings import Settings
from app.config.sources import load_settings
from app.inbox.inbox import connect
from app.inbox.rejected import Rejected, RejectedDeliveries
from app.receiver.admission import Admission, Admitted

_TITLE = "[yellow]Unverified: anybody may have sent these.[/]"


def rejected(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of rejected deliveries; all by default.")] = None,
    body: Annotated[bool, typer.Option("--body", help="Show the body too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most to list.")] = 50,
    admit: Annotated[
        bool, typer.Option("--admit", help="Verify again with the present settings, and record what now verifies.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --admit: do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List deliveries refused for their signature, the newest first; or record those that verify by now."""
    if yes and not admit:
        raise typer.BadParameter("goes with --admit", param_hint="--yes")
    if admit and body:
        raise typer.BadParameter("does not go with --admit", param_hint="--body")
    settings = load_settings()
    with connect(settings) as redis:
        kept = RejectedDeliveries(redis)
        chosen = [kept.get(id) for id in dict.fromkeys(ids)] if ids else None
        if admit:
            _admit(settings, redis, chosen, asks=not yes and sys.stdin.isatty(), as_json=as_json)
        else:
            _show(settings, chosen or list(islice(kept.newest(), limit)), bool(ids), body, as_json)


def _show(settings: Settings, chosen: list[Rejected], whole: bool, body: bool, as_json: bool) -> None:
    header = settings.signature_header
    if as_json:
        print_json([_details(one, header) | (_body(one) if body else {}) for one in chosen])
    elif whole or body:
        for one in chosen:
            _show_one(one, header, body)
    elif chosen:
        console.print(_TITLE)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("id", "received", "peer", "bytes", "why"):
            table.add_column(column, no_wrap=column != "why")
        for one in chosen:
            size = str(len(one.request.body))
            table.add_row(one.id, local(one.received), plain(one.peer), size, plain("; ".join(one.why(header))))
        print_table(table)
        console.print(f"[dim]Why, and which settings accept them: {program()} diagnose ID[/]")
    else:
        console.print("No rejected deliveries are kept.")


def _show_one(one: Rejected, header: str, body: bool) -> None:
    request = one.request
    console.print(f"[bold]{one.id}[/]  [yellow]unverified[/]")
    console.print(f"  {precise(one.received)}  {len(request.body)} bytes from {plain(one.peer)}")
    for words in one.why(header):
        console.print(f"  {plain(words)}")
    console.print(f"  {plain(request.method)} {plain(request.target.decode('latin-1'))}")
    for name, value in request.headers:
        console.print(f"  {plain(name)}: {plain(value.decode('latin-1'))}")
    for name in one.left_out:
        console.print(f"  [dim]{plain(name)}: not kept[/]")
    if body:
        console.print(f"\n[bold]body[/]\n{plain(request.body.decode('utf-8', 'replace'))}")


def _details(one: Rejected, header: str) -> dict[str, Any]:
    request = one.request
    return {
        "id": one.id,
        "verified": False,
        "received": iso(one.received),
        "peer": one.peer,
        "fault": one.fault,
        "why": one.why(header),
        "method": request.method,
        "target": request.target.decode("latin-1"),
        "headers": [[name, value.decode("latin-1")] for name, value in request.headers],
        "headers_not_kept": list(one.left_out),
        "bytes": len(request.body),
    }


def _body(one: Rejected) -> dict[str, str]:
    return {"body": one.request.body.decode("utf-8", "replace")}


def _admit(settings: Settings, redis: "Redis", chosen: list[Rejected] | None, *, asks: bool, as_json: bool) -> None:
    if asks:
        which = "all rejected deliveries" if chosen is None else f"{len(chosen)} rejected deliveries"
        typer.confirm(f"Record those of {which} that verify with the present settings?", abort=True, err=True)
    found = RejectedDeliveries(redis).oldest() if chosen is None else sorted(chosen, key=_age)
    outcomes = asyncio.run(_admit_all(Admission(settings, redis, who()), found, tell=not as_json))
    states = [outcome["status"] for outcome in outcomes]
    which = "all rejected deliveries" if chosen is None else ", ".join(one.id for one in chosen)
    audit.record(redis, "admit", which, sum(outcome["event"] is not None for outcome in outcomes))
    if as_json:
        print_json(outcomes)
    elif not outcomes:
        console.print("No rejected deliveries are kept.")
    else:
        left = states.count("unverified") + states.count("unavailable")
        console.print(f"{len(states) - left} recorded, {left} left as they are.")
    if "unavailable" in states or (chosen is not None and "unverified" in states):
        raise typer.Exit(1)


async def _admit_all(admission: Admission, found: Iterable[Rejected], *, tell: bool) -> list[dict[str, Any]]:
    outcomes = []
    async for one in admission.admit(found):
        outcomes.append(_outcome(one))
        if tell:
            _tell(one)
    return outcomes


def _outcome(one: Admitted) -> dict[str, Any]:
    status = one.receipt.status if one.receipt else "unverified" if one.fault else "unavailable"
    return {
        "id": one.rejected.id,
        "status": status,
        "event": one.receipt.id if one.receipt else None,
        "fault": one.fault,
    }


def _tell(one: Admitted) -> None:
    if one.receipt:
        console.print(f"{one.rejected.id} is verified now: {one.receipt.status}, event {one.receipt.id}")
    elif one.fault:
        errors.print(f"{one.rejected.id} still does not verify ({one.fault}): left alone", style="yellow")
    else:
        errors.print(f"{one.rejected.id} could not be recorded in time: try again", style="red")


def _age(one: Rejected) -> tuple[int, ...]:
    """Its place among the rejected, from the oldest on."""
    return tuple(map(int, one.id.split("-")))
