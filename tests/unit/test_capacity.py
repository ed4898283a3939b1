"""What a load needs, from the constants; tests/system/test_filled.py holds them against a server."""

import subprocess
import sys
from dataclasses import replace

import orjson
import pytest

from app.ops.capacity import FACTORS, Limits, Load, memory, need, needs
from tests.support.stack import ROOT

DAY = 86_400.0
SMALL = Load(
    events_per_day=1000,
    body_bytes=2000,
    retention=7 * DAY,
    dedupe_window=30 * DAY,
    handler_seconds=0.5,
    peak=20,
    api_calls=1,
)
LIMITS = Limits(memory=1024**3, workers=2, api_per_minute=100)


def test_memory_grows_with_events_bodies_and_the_time_they_are_kept() -> None:
    once = memory(SMALL)
    assert memory(SMALL.times(10)) == pytest.approx(10 * once)
    assert memory(replace(SMALL, body_bytes=3000)) - once == pytest.approx(7 * 1000 * 1000)
    assert memory(replace(SMALL, retention=14 * DAY)) > 1.8 * once
    assert once < memory(replace(SMALL, dedupe_window=60 * DAY)) < 1.2 * once


def test_a_marker_lives_as_long_as_the_record_at_least() -> None:
    """P4."""
    assert memory(replace(SMALL, dedupe_window=0)) == memory(replace(SMALL, dedupe_window=7 * DAY))


def test_an_ordinary_day_breaks_nothing() -> None:
    found = need(SMALL, LIMITS)
    assert found.too_much == ()
    assert (found.receivers, found.workers) == (1, 1)


def test_what_breaks_first() -> None:
    """The API's limit and the workers, long before memory, and Redis itself last."""
    found = {one.factor: one.too_much for one in needs(SMALL, LIMITS)}
    assert tuple(found) == FACTORS
    assert found[10][0] == "workers"
    assert "limit of JobsiteOn's API" not in found[100]
    assert "memory of Redis" in found[100]
    assert set(found[10_000]) == {
        "workers",
        "memory of Redis",
        "limit of JobsiteOn's API",
        "one receiver process",
    }
    assert need(SMALL, LIMITS, 100_000).too_much[-1] == "one Redis"
    without_calls = replace(SMALL, api_calls=0)
    assert "limit of JobsiteOn's API" not in need(without_calls, LIMITS, 10_000).too_much


def capacity(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app", "capacity", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_needs_no_settings_and_no_server() -> None:
    ended = capacity("--events-per-day", "1000", "--body-bytes", "2kB", "--retention", "7d", "--json")
    assert ended.returncode == 0, ended.stderr
    first, *_ = orjson.loads(ended.stdout)["needs"]
    assert first["memory"] == need(SMALL, LIMITS).memory
    shown = capacity("--events-per-day", "1000")
    assert all(f"{factor:,}×" in shown.stdout for factor in FACTORS)
    assert "breaks first" in shown.stdout


@pytest.mark.parametrize(
    "options", [("--retention", "7"), ("--body-bytes", "big"), ("--max-memory", "0"), ("--events-per-day", "0")]
)
def test_what_cannot_be_read_is_refused(options: tuple[str, ...]) -> None:
    ended = capacity(*options)
    assert ended.returncode == 2
    assert options[0] in ended.stderr


def test_the_page_has_the_figures_of_the_code() -> None:
    page = (ROOT / "deploy" / "SCALING.md").read_text("utf-8")
    for row, name in (("memory of Redis, `maxmemory` 1 GiB", "memory"), ("its disk, at most", "log")):
        cells = [size(getattr(one, name)) for one in needs(SMALL, LIMITS)]
        assert f"| {row} | {' | '.join(cells)} |" in page


def size(number: float) -> str:
    """As the page has it: in GiB with one digit, if that says anything."""
    if number < 1024**3:
        return f"{number / 1024**2:.0f} MiB"
    gib = number / 1024**3
    return f"{gib:.1f} GiB" if gib < 100 else f"{gib:.0f} GiB"
