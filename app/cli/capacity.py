"""`jobhook capacity`: what a number of events a day needs, and what breaks first."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.output import print_json, print_table
from app.config.settings import Settings
from app.ops.capacity import Limits, Load, Need, needs
from app.units import parse_duration, parse_size

KIB = 1024.0


def capacity(
    events_per_day: Annotated[int, typer.Option("--events-per-day", min=1, help="On average.")] = 1000,
    body_bytes: Annotated[str, typer.Option("--body-bytes", help="Size of a body, such as 2kB.")] = "2kB",
    retention: Annotated[str, typer.Option(help="JOBHOOK_RETENTION.")] = "7d",
    dedupe_window: Annotated[str, typer.Option(help="JOBHOOK_DEDUPE_WINDOW.")] = "30d",
    handler_time: Annotated[str, typer.Option(help="How long the handlers of an event take.")] = "500ms",
    api_calls: Annotated[float, typer.Option(min=0, help="Requests to JobsiteOn's API that an event makes.")] = 1.0,
    peak: Annotated[float, typer.Option(min=1, help="Busiest seconds over the average.")] = 20.0,
    max_memory: Annotated[str, typer.Option(help="`maxmemory` of Redis.")] = "1024MiB",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a number of events a day needs, and what breaks first with 10, 100 and 10,000 times as many.

    Reads no settings and asks no server: deploy/SCALING.md says what was measured.
    """
    load = Load(
        events_per_day=events_per_day,
        body_bytes=_read("--body-bytes", parse_size, body_bytes),
        retention=_read("--retention", parse_duration, retention),
        dedupe_window=_read("--dedupe-window", parse_duration, dedupe_window),
        handler_seconds=_read("--handler-time", parse_duration, handler_time),
        peak=peak,
        api_calls=api_calls,
    )
    limits = Limits(
        memory=_read("--max-memory", parse_size, max_memory),
        workers=_default("workers"),
        api_per_minute=_default("api_rate_limit") * 60 / _default("api_rate_window"),
    )
    if limits.memory <= 0:
        raise typer.BadParameter("must be more than nothing", param_hint="--max-memory")
    found = list(needs(load, limits))
    if as_json:
        print_json({"load": asdict(load), "limits": asdict(limits), "needs": [one.as_dict() for one in found]})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for one in found:
        table.add_column(f"{one.factor:,}×", justify="right")
    for name, *cells in zip(_ROWS, *map(_cells, found), strict=True):
        table.add_row(name, *cells)
    print_table(table)


_ROWS = (
    "events a day",
    "a second at the peak",
    "memory of Redis",
    "its disk, at most",
    "written to it a day",
    "receiver processes",
    "worker processes",
    "memory of the processes",
    "Redis busy at the peak",
    "API requests a minute",
    "breaks first",
    "then",
)


def _cells(one: Need) -> tuple[str, ...]:
    first, *then = one.too_much or ("nothing",)
    return (
        f"{one.events_per_day:,.0f}",
        f"{one.per_second_at_peak:,.1f}",
        _size(one.memory),
        _size(one.log),
        _size(one.log_written_per_day),
        f"{one.receivers:,}",
        f"{one.workers:,}",
        _size(one.processes_memory),
        f"{one.redis_busy:.1%}",
        f"{one.api_per_minute:,.1f}",
        first,
        "\n".join(then),
    )


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < KIB:
            return f"{number:,.0f} {unit}" if unit != "GiB" else f"{number:,.1f} {unit}"
        number /= KIB
    return f"{number:,.1f} TiB"


def _read(name: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _default(name: str) -> Any:
    """Of a setting: what an installation has that changes nothing."""
    return Settings.model_fields[name].default
