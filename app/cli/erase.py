"""`jobhook discard` and `erase`: take out for good what events say, of those nobody tries again, or about a person."""

from typing import Annotated

import typer

from app.cli import audit, bulk
from app.cli.bulk import Limits, Most, Rate, Yes
from app.cli.filters import filtered
from app.cli.inspect import open_inbox
from app.cli.output import console, errors
from app.inbox import erasure
from app.inbox.audit import in_words
from app.inbox.filter import Filter

_ERASED = ("done", "dead", "queued", "retrying")
EXIT_LEFT = 1


@filtered
def discard(
    chosen: Filter,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of events, or their first digits.")] = None,
    yes: Yes = False,
    most: Most = None,
    rate: Rate = None,
) -> None:
    """Give dead events up for good. Id, type, resource and times stay; body, errors and results go."""
    if bool(ids) == bool(chosen.words()):
        raise typer.BadParameter("give ids, or a filter")
    inbox = open_inbox()
    if ids:
        found, which = {inbox.find(id): "dead" for id in ids}, ", ".join(ids)
    else:
        found, which = bulk.find(inbox, chosen, lambda one: one.state == "dead", most), in_words(chosen)
        bulk.ask("discarded for good", chosen, found, yes=yes)
    done = bulk.change(list(found), lambda some: erasure.discard(inbox, some), Limits(most, rate), "discard")
    changed = bulk.tell(done, "discarded", ("dead",))
    if found:
        audit.record(inbox.redis, "discard", which, changed, done.note)
    if done.was_interrupted:
        raise typer.Exit(bulk.EXIT_INTERRUPTED)
    if changed < len(found):
        raise typer.Exit(EXIT_LEFT)


@filtered
def erase(chosen: Filter, yes: Yes = False, rate: Rate = None) -> None:
    """Erase what events say, for good: bodies, errors, results, headers. Open ones are ended.

    Id, type, resource and times stay, so that a redelivery is still known. With --search or --resource, rejected
    deliveries that mention it and cached answers of the API go too.
    """
    if not chosen.words():
        raise typer.BadParameter("say what: --resource contact/con_1, --search TEXT, or another filter")
    inbox = open_inbox()
    found = bulk.find(inbox, chosen, lambda one: not one.emptied or bool(chosen.search), None)
    bulk.ask("erased for good", chosen, found, yes=yes)
    done = bulk.change(list(found), lambda some: erasure.erase(inbox, some, chosen), Limits(rate=rate), "erase")
    beside = {} if done.was_interrupted else erasure.erase_beside(inbox.redis, chosen)
    changed = bulk.tell(done, "erased", _ERASED)
    for what, number in beside.items():
        if number:
            console.print(f"{number} {what} erased.")
    audit.record(inbox.redis, "erase", in_words(chosen), changed, done.note)
    console.print(
        "Redis's append-only file holds it until that is rewritten: `redis-cli BGREWRITEAOF`. Backups hold it as well."
    )
    if done.was_interrupted:
        raise typer.Exit(bulk.EXIT_INTERRUPTED)
    if running := list(done.results.values()).count("running"):
        errors.print(f"{running} are being worked on: erase again once they have ended.", style="yellow")
    if changed < len(found):
        raise typer.Exit(EXIT_LEFT)
