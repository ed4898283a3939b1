"""`jobhook pause` and `resume`: keep the workers from events for a while. What is received meanwhile waits."""

from shlex import quote
from typing import Annotated

import typer

from app.cli import audit
from app.cli.output import console, local, plain
from app.cli.who import who
from app.config.sources import load_settings
from app.inbox.handlers import known
from app.inbox.inbox import connect
from app.inbox.paused import EVERYTHING, in_force, pause
from app.inbox.paused import resume as end
from app.units import parse_duration

LONGEST_NAME = 280
"""Characters: so much of what an event waits for is kept in its record."""
LONGEST_SECONDS = 3650 * 86400.0
EXIT_NOTHING = 1

_What = Annotated[
    str | None,
    typer.Argument(
        help="A pattern of event types such as invoice.*, a handler's name, a destination's URL. By default all.",
    ),
]


def pause_(
    what: _What = None,
    duration: Annotated[
        str | None,
        typer.Option("--for", help="End it by itself after so long: 90s, 1h, 2d.", show_default="until resumed"),
    ] = None,
) -> None:
    """Keep events from being worked on. They are received all the same, and no attempt is used up."""
    name = _checked(EVERYTHING if what is None else what)
    seconds = _seconds(duration)
    with connect(load_settings()) as redis:
        made = pause(redis, name, seconds, who())
        audit.record(redis, "pause", name, 1, f"for {duration}" if duration else "")
        handlers = known(redis) or set()
    until = f"`jobhook resume {quote(name)}`" if made.until is None else local(made.until)
    console.print(f"Paused {plain(_in_words(name, handlers))}, until {plain(until)}.")


def resume(what: _What = None) -> None:
    """End a pause, or all of them. What has waited goes on at once."""
    with connect(load_settings()) as redis:
        names = [one.what for one in in_force(redis)]
        chosen = names if what is None else [name for name in names if name == what]
        for name in chosen:
            woken = end(redis, name)
            audit.record(redis, "resume", name, 1)
            events = "" if not woken else ": 1 event goes on" if woken == 1 else f": {woken} events go on"
            console.print(f"Resumed {plain(_in_words(name, known(redis) or set()))}{events}.")
    if not chosen:
        paused = f" Paused is: {', '.join(names)}." if names else ""
        console.print("Nothing is paused." if what is None else plain(f"{what} is not paused.{paused}"))
        raise typer.Exit(EXIT_NOTHING)


def _in_words(name: str, handlers: set[str]) -> str:
    if name == EVERYTHING:
        return "everything"
    if name in handlers:
        return f"the handler {name}"
    if f"forward {name}" in handlers:
        return f"the destination {name}"
    return f"events of type {name}"


def _checked(what: str) -> str:
    if not what.strip() or what != what.strip() or not what.isprintable() or len(what) > LONGEST_NAME:
        raise typer.BadParameter("write a pattern of event types, a handler's name or a destination's URL")
    return what


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    try:
        seconds = float(parse_duration(duration))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise typer.BadParameter("from 1s to 10 years", param_hint="--for")
    return seconds
