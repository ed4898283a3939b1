"""`jobhook alerts`: what the workers tell of at the moment, to whom, and whether it reaches them."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from app import __version__
from app.cli.output import LEVEL_STYLES, console, iso, local, plain, print_json, print_table
from app.config.settings import Settings
from app.config.sources import load_settings
from app.inbox.inbox import connect
from app.ops import messenger, watch
from app.ops.alerts import Alert, Message

EXIT_FAILURE = 1


def alerts(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    test: Annotated[bool, typer.Option("--test", help="Send one to every URL, and say which has failed.")] = False,
) -> None:
    """Show what is told of as an alert now, since when, and whom it has reached."""
    settings = load_settings()
    if test:
        _test(settings, as_json=as_json)
        return
    with connect(settings) as redis:
        kept = watch.read(redis)
    active = {key: alert for key, alert in kept.memory.alerts.items() if alert.is_active}
    if as_json:
        print_json(
            {
                "alerts": [_as_dict(key, alert) for key, alert in active.items()],
                "destinations": [_taker(taker) for taker in kept.takers.values()],
                "waiting": len(kept.posts),
            }
        )
        return
    if active:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "since", "last told", "what"):
            table.add_column(column)
        for alert in active.values():
            level = f"[{LEVEL_STYLES[alert.level]}]{alert.level}[/]"
            times = f" ({alert.times} times)" if alert.times > 1 else ""
            what = f"{plain(alert.text)}{times}\n[dim]{plain(alert.remedy)}[/]"
            table.add_row(level, local(alert.since), local(alert.told or alert.since), what)
        print_table(table)
    else:
        console.print("No alerts.")
    _print_takers(settings, kept)


def _print_takers(settings: Settings, kept: watch.Kept) -> None:
    if not settings.alert_urls:
        console.print("Nobody is told: JOBHOOK_ALERT_URLS is not set.")
    for taker in kept.takers.values():
        if taker.failing_since is None:
            console.print(f"{plain(taker.name)}: last sent {local(taker.sent or 0.0)}")
        else:
            since = local(taker.failing_since)
            console.print(f"{plain(taker.name)}: has taken none since {since}: {plain(taker.why)}", style="red")
    if kept.posts:
        console.print(f"Messages that wait to be sent: {len(kept.posts)}.")


def _test(settings: Settings, *, as_json: bool) -> None:
    messenger.refuse_unusable(settings)
    if not settings.alert_urls:
        console.print("JOBHOOK_ALERT_URLS is not set: there is nobody to tell.")
        raise typer.Exit(EXIT_FAILURE)
    message = Message("Jobhook: a test", f"This is a test of alerts, by Jobhook {__version__}. All is well.", "ok")
    pairs = [(destination, url, message) for destination, url in messenger.destinations(settings).items()]
    results = [sent for _, sent in messenger.send(pairs, watch.SEND_SECONDS)]
    if as_json:
        print_json([{"destination": sent.destination.name, "failure": sent.failure or None} for sent in results])
    else:
        for sent in results:
            said = f"[red]failed[/]: {plain(sent.failure)}" if sent.failure else "[green]sent[/]"
            console.print(f"{plain(sent.destination.name)}: {said}")
    if any(sent.failure for sent in results):
        raise typer.Exit(EXIT_FAILURE)


def _as_dict(key: str, alert: Alert) -> dict[str, Any]:
    times = {name: iso(getattr(alert, name)) for name in ("since", "seen", "told")}
    return {"alert": key} | {name: getattr(alert, name) for name in ("level", "text", "remedy", "times")} | times


def _taker(taker: watch.Taker) -> dict[str, Any]:
    return asdict(taker) | {"sent": iso(taker.sent), "failing_since": iso(taker.failing_since)}
