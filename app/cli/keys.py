"""`jobhook keys`: which of JobsiteOn's keys are in use, since when, and whether a key is one of them."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.output import console, iso, local, print_json, print_table
from app.config.keys import CURRENT, fingerprint
from app.config.names import variable
from app.config.settings import Settings
from app.config.sources import ENVIRONMENT, load_settings, places
from app.delivery.diagnosis import TYPED, Key
from app.delivery.diagnosis.keys import mispasted
from app.inbox.inbox import connect
from app.ops.keys import RETIRED, Standing, standings

EXIT_UNKNOWN = 1

app = typer.Typer(name="keys", help="Show JobsiteOn's keys: since when they are known, and what they have verified.")


@app.callback(invoke_without_command=True)
def keys(context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    if context.invoked_subcommand:
        return
    settings = load_settings()
    found = _standings(settings)
    where = places()
    if as_json:
        print_json([_as_dict(key, where) for key in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "fingerprint", "known since", "last verified", "today", "7 days", ""):
        table.add_column(column)
    for key in found:
        since, last = ("-" if moment is None else local(moment) for moment in (key.since, key.last))
        table.add_row(key.name, key.fingerprint, since, last, str(key.today), str(key.week), escape(key.says))
    print_table(table)
    fixed = [name for name in dict.fromkeys(map(_variable, found)) if where.get(name or "") == ENVIRONMENT]
    if fixed:
        console.print(f"Set in the environment, so that a change needs a restart: {', '.join(map(str, fixed))}.")


@app.command()
def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say whether a key is one of yours; it is typed unseen, or read from standard input. Exit with 1 if it is not."""
    settings = load_settings()
    given = _read()
    known = {key.fingerprint: key for key in _standings(settings)}
    found, twist = known.get(fingerprint(given)), ""
    if found is None:
        twists = (key for key in mispasted([Key(TYPED, given)]) if fingerprint(key.value) in known)
        if twisted := next(twists, None):
            found, twist = known[fingerprint(twisted.value)], twisted.twist
    if as_json:
        print_json({"known": found is not None, "twist": twist, "key": found and _as_dict(found, places())})
    elif found is None:
        console.print(f"Not a key that is configured here or remembered (fingerprint {fingerprint(given)}).")
    else:
        like = f"Not as it was given, but {twist}, this is" if twist else "This is"
        which = "a retired key" if found.name == RETIRED else f"the key `{found.name}`"
        console.print(escape(f"{like} {which}, fingerprint {found.fingerprint}: {found.says}."))
        if found.since:
            console.print(f"Known since {local(found.since)}, last verified a delivery: {_moment(found.last)}.")
    if found is None:
        raise typer.Exit(EXIT_UNKNOWN)


def _read() -> bytes:
    if sys.stdin.isatty():
        typed: str = typer.prompt("Key", hide_input=True, err=True)
        return typed.encode("utf-8", "surrogateescape")
    return sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")


def _standings(settings: Settings) -> list[Standing]:
    with connect(settings) as redis:
        return standings(settings, redis)


def _variable(key: Standing) -> str | None:
    """Where a key is configured; None if it is not, here."""
    if key.name == CURRENT:
        return variable("api_key")
    return variable("previous_api_keys") if key.name.startswith("previous") else None


def _moment(seconds: float | None) -> str:
    return "never" if seconds is None else local(seconds)


def _as_dict(key: Standing, where: dict[str, str]) -> dict[str, Any]:
    """For scripts: times in ISO 8601. `reloads` tells whether a change is taken over without a restart."""
    name = _variable(key)
    place = where.get(name) if name else None
    return asdict(key) | {
        "since": iso(key.since),
        "last": iso(key.last),
        "from": place,
        "reloads": None if place is None else place != ENVIRONMENT,
    }
