"""The handlers under fault. Each effect is a line in a file outside Redis."""

import os
import subprocess
import threading
import time
from functools import partial
from time import monotonic

from tests.chaos.ledger import EFFECTS_FILE, Effect, Kind, append
from workers import Permanent, RetryAfter, on
from workers.event import Event

SLOW_SECONDS = 0.05

STEPS: dict[str, tuple[str, ...]] = {
    "chaos.plain": ("one", "two"),
    "chaos.steps": ("first", "second"),
    "chaos.flaky": ("before", "after"),
    "chaos.slow": ("slow",),
    "chaos.serial": ("serial",),
    "chaos.doomed": ("doomed",),
    "chaos.untidy": ("untidy",),
}
"""The effects that an event of each type has, each once."""
DOOMED = "chaos.doomed"
"""The type whose events end as dead."""


def note(kind: Kind, event: Event, step: str, key: str) -> None:
    append(os.environ[EFFECTS_FILE], Effect(kind, event.id, step, key, os.getpid(), monotonic()))


def once(event: Event, step: str, seconds: float = 0.0) -> None:
    """A step whose effect is a line, and a line after it has been recorded as finished."""
    event.once(step, partial(_effect, event, step, seconds))
    note("finished", event, step, "")


def _effect(event: Event, step: str, seconds: float, key: str) -> None:
    note("effect", event, step, key)
    time.sleep(seconds)


_last: tuple[str, int, str] | None = None
"""Of the handler that ran last in this process: its event, its attempt and its step."""


def in_turn(event: Event, step: str) -> None:
    """The effect of one of two handlers. After a crash the other one begins."""
    global _last  # noqa: PLW0603 - one event at a time
    if _last and _last[:2] == (event.id, event.attempt) and _last[2] != step:
        note("finished", event, _last[2], "")  # a handler's turn comes when the one before has been recorded
    note("effect", event, step, f"{event.id} {step}")
    _last = (event.id, event.attempt, step)


@on("chaos.plain")
def one(event: Event) -> None:
    in_turn(event, "one")


@on("chaos.plain")
def two(event: Event) -> None:
    in_turn(event, "two")


@on("chaos.steps")
def take_two_steps(event: Event) -> None:
    once(event, "first")
    once(event, "second")


@on("chaos.flaky")
def fail_once(event: Event) -> None:
    once(event, "before")
    if event.attempt == 1:
        raise RetryAfter(0)
    once(event, "after")


@on("chaos.slow")
def take_time(event: Event) -> None:
    once(event, "slow", SLOW_SECONDS)


@on("chaos.serial", one_at_a_time="resource")
def take_a_turn(event: Event) -> None:
    once(event, "serial")


@on("chaos.untidy")
def leave_things_behind(event: Event) -> None:
    """A process and a thread that outlive the event."""
    once(event, "untidy", SLOW_SECONDS)
    subprocess.Popen(["sleep", "3600"])
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


@on(DOOMED)
def fail_for_good(event: Event) -> None:
    once(event, "doomed")
    raise Permanent("doomed")
