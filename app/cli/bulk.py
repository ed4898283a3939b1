"""Changing many events: counted first, asked for, paced, shown while it goes on, and stopped at any time."""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.cli.output import STATE_STYLES, console, errors, fail, plain
from app.inbox.audit import in_words
from app.inbox.filter import Filter
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from app.inbox.search import Search

BATCH = 200
"""Events changed in one step: about 5 ms of the server's time, so that receivers need not wait."""
EXIT_NOBODY_TO_ASK, EXIT_INTERRUPTED = 2, 130

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Most = Annotated[int | None, typer.Option(min=1, help="Change so many at most: the newest.", show_default="all")]
Rate = Annotated[float | None, typer.Option(min=0.1, help="Change so many a second.", show_default="at once")]


@dataclass(frozen=True)
class Limits:
    """How many, and how fast."""

    most: int | None = None
    rate: float | None = None


@dataclass
class Done:
    """What has been done of it."""

    results: dict[str, str]
    """What came of each event, by id."""
    total: int
    was_interrupted: bool = False

    @property
    def note(self) -> str:
        """What the audit trail says of it beside the number."""
        return "interrupted" if self.was_interrupted else ""


def find(inbox: Inbox, chosen: Filter, wanted: Callable[[Record], bool], most: int | None) -> dict[str, str]:
    """The events that are to be changed, and their states: those that fit and are wanted, so many at most."""
    found: dict[str, str] = {}
    with _progress() as progress:
        task = progress.add_task("looking", total=None)
        search = Search(inbox.redis, chosen)
        for record in search:
            if wanted(record):
                found[record.id] = record.state
            progress.update(task, completed=search.looked)
            if len(found) == most:
                break
    return found


def ask(verb: str, chosen: Filter, found: dict[str, str], *, yes: bool) -> None:
    """Says how many events would be changed, and asks, unless `yes`. Ends the command if it is not to be."""
    states = Counter(found.values())
    each = ", ".join(f"{states[state]} {state}" for state in STATE_STYLES if states[state])
    events = "1 event" if len(found) == 1 else f"{len(found)} events"
    says = f"{events} ({each}) {'fits' if len(found) == 1 else 'fit'} {plain(in_words(chosen))}"
    if yes or not found:
        return
    if not sys.stdin.isatty():
        fail(
            f"{says}. Nothing was done, because nobody can be asked here: with --yes, they are {verb}.",
            EXIT_NOBODY_TO_ASK,
        )
    typer.echo(f"{says}.", err=True)
    typer.confirm(f"Shall they be {verb}?", abort=True, err=True)


def change(ids: Sequence[str], act: Callable[[Sequence[str]], dict[str, str]], limits: Limits, verb: str) -> Done:
    """Changes events in batches, at the pace that is wanted. A Ctrl-C ends it after the batch in hand."""
    done = Done({}, len(ids))
    size = BATCH if limits.rate is None else max(1, min(BATCH, int(limits.rate)))
    begun = monotonic()
    with _progress() as progress, _stop_on_ctrl_c() as stop:
        task = progress.add_task(verb, total=len(ids))
        for start in range(0, len(ids), size):
            if limits.rate is not None:
                stop.wait(max(0.0, begun + start / limits.rate - monotonic()))
            if stop.is_set():
                done.was_interrupted = True
                break
            done.results |= act(ids[start : start + size])
            progress.update(task, completed=len(done.results))
    return done


@contextmanager
def _stop_on_ctrl_c() -> Iterator[Event]:
    """An event that a Ctrl-C sets: what is under way then is not cut in two."""
    stop = Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def tell(done: Done, verb: str, were: Collection[str]) -> int:
    """Says how many were changed: those whose result is one of `were`. Returns their number."""
    results = Counter(done.results.values())
    changed = sum(results[state] for state in were)
    console.print(f"{changed} of {done.total} {verb}.")
    for state, number in results.items():
        if state not in were:
            errors.print(f"{number} left alone: {_why(state)}", style="yellow")
    if done.was_interrupted:
        errors.print(f"Interrupted: {done.total - len(done.results)} were not come to.", style="yellow")
    return changed


def _why(state: str) -> str:
    if state == "":
        return "there is no record any more"
    return "what they said is gone" if state == "emptied" else f"{state} by now"


def _progress() -> Progress:
    """On a terminal, how far it is; elsewhere nothing."""
    target = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=target, transient=True, disable=not target.is_terminal)
