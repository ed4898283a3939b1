"""The limit strikes in the block, and nowhere else (P2)."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from httpcore._synchronization import ThreadLock
from redis.connection import HiredisRespSerializer

from tests.support import wait_until
from workers.timelimit import DEFER_SECONDS, HandlerTimeout, time_limit


@pytest.fixture(autouse=True)
def alarm() -> Iterator[list[int]]:
    """The alarms that come to whoever was there before. Pytest's own limit is one of these, and is back at the end."""
    came: list[int] = []
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    yield came
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, *timer)


def test_it_strikes_what_takes_too_long() -> None:
    with pytest.raises(HandlerTimeout, match=r"longer than 0\.01 s"), time_limit(0.01):
        threading.Event().wait(60)


def test_it_leaves_alone_what_does_not() -> None:
    with time_limit(60):
        pass


def test_it_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.timelimit.INSIST_SECONDS", 0.01)
    struck = 0

    def swallow_two() -> None:
        nonlocal struck
        while True:
            try:
                threading.Event().wait(60)
            except BaseException:
                struck += 1
                if struck == 3:
                    raise

    with pytest.raises(HandlerTimeout), time_limit(0.01):
        swallow_two()


class Tracer:
    """Raises the alarm at a step of `__exit__`, counted from its beginning."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.reached = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code is not time_limit.__exit__.__code__:
            return None
        frame.f_trace_opcodes = True
        self.step -= 1
        if self.step == 0:
            self.reached = True
            strike: Any = signal.getsignal(signal.SIGALRM)
            if callable(strike):
                strike(signal.SIGALRM, frame)
        return self


def test_it_strikes_at_no_step_of_the_end() -> None:
    """What has been done in time is kept, wherever the alarm comes between its end and the disarming."""
    steps = 0
    while True:
        tracer = Tracer(steps + 1)
        result = None
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            with time_limit(60):
                result = "done"
        finally:
            sys.settrace(before)
        assert result == "done"
        if not tracer.reached:
            break
        steps += 1
    assert steps > 5


def test_an_alarm_after_the_end_meets_what_was_there_before(alarm: list[int]) -> None:
    with time_limit(60):
        pass
    signal.raise_signal(signal.SIGALRM)
    wait_until(lambda: alarm == [signal.SIGALRM], "the alarm")


@pytest.mark.parametrize(
    "fragile", [HiredisRespSerializer.pack, ThreadLock.__enter__, ThreadLock.__exit__, time_limit._strike]
)
def test_where_a_strike_would_do_damage_it_comes_a_little_later(fragile: Any) -> None:
    """P2: hiredis would take the process along; a lock that is taken at this moment would never be given back."""
    frame: Any = SimpleNamespace(f_code=fragile.__code__)
    limit = time_limit(60)
    with limit:
        strike: Any = signal.getsignal(signal.SIGALRM)
        strike(signal.SIGALRM, frame)
        assert not limit.has_struck
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 2 * DEFER_SECONDS
        with pytest.raises(HandlerTimeout):
            threading.Event().wait(60)
    assert limit.has_struck
