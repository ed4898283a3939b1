"""`python -m tests.benchmarks`: the figures of the README, side by side in one run."""

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from app.cli.embedded import DURABLE, EmbeddedServer
from tests.benchmarks import accepting, rivals, storing, working
from tests.benchmarks.accepting import Accepted
from tests.benchmarks.chart import bars
from tests.benchmarks.processes import pin_to_other_core
from tests.benchmarks.working import Worked

HELLO, BARE, OURS, OURS_FSYNC = "FastAPI hello", "bare ASGI", "Jobhook", "Jobhook, fsync"
NO_REWRITE = ("--auto-aof-rewrite-percentage", "0")
"""Else the server rewrites its log on behalf of whoever happens to be measured then."""
CHART = Path(__file__).with_name("accepting.svg")
Figures = TypeVar("Figures", Accepted, Worked)
console = Console(stderr=True)


def main() -> None:
    """Measures, and prints Markdown on standard output."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="three rounds and a million events: half an hour")
    parser.add_argument("--part", choices=("accept", "work", "store"), help="only this part")
    parser.add_argument(
        "--rivals", action="store_true", help="also BullMQ, Celery and taskiq: needs npm, installs them"
    )
    options = parser.parse_args()
    pin_to_other_core()
    contenders, kinds = accepting.CONTENDERS, working.kinds()
    if options.rivals:
        rivals.install()
        contenders, kinds = contenders + accepting.RIVALS, kinds + working.rivals()
    rounds, requests, jobs, stored = (3, 12_000, 6000, 1_000_000) if options.full else (2, 6000, 2400, 100_000)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder), *DURABLE, *NO_REWRITE) as server:
        if options.part in {None, "accept"}:
            running = accepting.rounds(server, contenders, requests, rounds)
            measured = list(_progress(running, rounds * len(contenders), "accepting"))
            _print(_accepting(measured))
            CHART.write_text(bars("Deliveries accepted per second, one core", _medians(measured, "per_second")))
        if options.part in {None, "work"}:
            working_ = working.rounds(server, kinds, jobs, rounds)
            _print(_working(list(_progress(working_, rounds * len(kinds), "working"))))
            p50, p99 = working.start_latencies(server, 15 if options.full else 5)
            rate = f"{working.START_PER_SECOND:g}/s"
            _print([f"From recorded to handler start at {rate}: p50 {p50:.1f} ms, p99 {p99:.1f} ms."])
        if options.part in {None, "store"}:
            console.print(f"storing {stored} events")
            _print(_storing(storing.measure(server, stored)))


def _progress(figures: Iterable[Figures], total: int, what: str) -> Iterable[Figures]:
    return track(figures, description=what, total=total, console=console)


def _medians(measured: Iterable[Figures], name: str) -> dict[str, float]:
    by_label: dict[str, list[float]] = {}
    for figures in measured:
        by_label.setdefault(figures.label, []).append(getattr(figures, name))
    return {label: median(values) for label, values in by_label.items()}


def _spread(measured: Iterable[Figures], label: str) -> str:
    rates = [figures.per_second for figures in measured if figures.label == label]
    return f"{min(rates):,.0f}–{max(rates):,.0f}"


def _accepting(measured: list[Accepted]) -> list[str]:
    rate, cpu = _medians(measured, "per_second"), _medians(measured, "cpu_us")
    calm, rss = _medians(measured, "calm_p99_ms"), _medians(measured, "rss_mb")
    rows = [
        "| accepting, one core | per s | spread | of hello | CPU µs each | of hello | p99 at 50/s, ms | RSS, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {label} | {rate[label]:,.0f} | {_spread(measured, label)} | {rate[label] / rate[HELLO]:.2f} "
        f"| {cpu[label]:.0f} | {cpu[label] / cpu[HELLO]:.2f} | {calm[label]:.1f} | {rss[label]:.0f} |"
        for label in rate
    ]
    return [
        *rows,
        "",
        f"Jobhook accepts {rate[OURS] / rate[HELLO]:.2f} × FastAPI hello, and with fsync "
        f"{rate[OURS_FSYNC] / rate[OURS]:.2f} × itself in memory; p99 at 50/s {calm[OURS] / calm[HELLO]:.1f} × "
        f"hello's; RSS {rss[OURS] / rss[HELLO]:.2f} ×.",
    ]


def _working(measured: list[Worked]) -> list[str]:
    rate, cpu = _medians(measured, "per_second"), _medians(measured, "cpu_us")
    stock = rate["stock rq worker"]
    rows = ["| working, one core | per s | spread | of stock | CPU µs each |", "|---|---|---|---|---|"]
    rows += [
        f"| {label} | {rate[label]:,.0f} | {_spread(measured, label)} | {rate[label] / stock:.1f} | {cpu[label]:,.0f} |"
        for label in rate
    ]
    return rows


def _storing(stored: storing.Stored) -> list[str]:
    return [
        f"With {stored.events:,} open events stored: a marker takes {stored.marker_bytes:.0f} bytes, a finished event "
        f"{stored.event_bytes:.0f} bytes and its body; accepting takes {stored.accept_ratio:.2f} × as long as with "
        f"none; a sweep {stored.sweep_ms:.1f} ms; listing the newest 50 {stored.list_ms:.1f} ms.",
    ]


def _print(lines: list[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
