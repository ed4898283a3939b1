"""When a failed event is tried again."""

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import retry
from workers.retry import JITTER, LONGEST_WAIT_SECONDS, Permanent, RetryAfter, judge, wait

SECONDS = {"s": 1, "min": 60, "h": 3600}


class Mean(random.Random):
    """Without jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def scheduled(attempt: int) -> float:
    return wait(attempt, Mean())


def documented() -> list[tuple[int, float, float]]:
    """The rows of the table in the docstring: attempt, wait, time since received."""
    rows = re.findall(
        r"^ +(\d+)(?: and on)? +([\d.]+) (s|min|h) +([\d.]+) (s|min|h)\b", retry.__doc__ or "", flags=re.MULTILINE
    )
    return [
        (int(attempt), float(pause) * SECONDS[unit], float(since) * SECONDS[since_unit])
        for attempt, pause, unit, since, since_unit in rows
    ]


def test_the_documented_schedule_is_the_schedule() -> None:
    table = documented()
    assert [attempt for attempt, _, _ in table] == list(range(1, 10))
    since = 0.0
    for attempt, pause, documented_since in table:
        since += scheduled(attempt)
        # The table is rounded.
        assert scheduled(attempt) == pytest.approx(pause, rel=0.13)
        assert since == pytest.approx(documented_since, rel=0.13)


def test_the_first_waits_are_seconds() -> None:
    assert [scheduled(attempt) for attempt in (1, 2, 3)] == [5, 15, 45]


def test_waits_grow_up_to_the_longest() -> None:
    waits = [scheduled(attempt) for attempt in range(1, 1001)]
    assert waits == sorted(waits)
    assert waits[7] < waits[8] == waits[-1] == LONGEST_WAIT_SECONDS == 8 * 3600


@settings(deadline=None)
@given(attempt=st.integers(min_value=1, max_value=1000), seed=st.integers())
def test_jitter_is_a_fifth_at_most(attempt: int, seed: int) -> None:
    assert abs(wait(attempt, random.Random(seed)) / scheduled(attempt) - 1) <= JITTER + 1e-9  # noqa: S311
    assert JITTER == 0.2


def test_what_failed_together_is_not_tried_again_together() -> None:
    waits = [wait(1) for _ in range(200)]
    assert max(waits) - min(waits) > scheduled(1) * JITTER


def test_twelve_attempts_take_some_28_hours() -> None:
    assert sum(map(scheduled, range(1, 12))) / 3600 == pytest.approx(28.5, abs=0.2)


@pytest.mark.parametrize("seconds", [0, 0.5, 3600, 30 * 86400], ids=str)
def test_a_handler_may_set_the_wait(seconds: float) -> None:
    assert RetryAfter(seconds).seconds == seconds


@pytest.mark.parametrize("seconds", [-1, -0.001, 30 * 86400 + 1, math.nan, math.inf, -math.inf], ids=str)
def test_a_wait_that_makes_no_sense_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="from 0 seconds to 30 days"):
        RetryAfter(seconds)


class Free(RetryAfter):
    """Nobody's fault."""

    counts = False


@pytest.mark.parametrize(
    ("errors", "attempt", "outcome", "delay", "uncounted"),
    [
        ([], 1, "done", 0, False),
        ([Permanent()], 1, "dead", 0, False),
        ([Permanent(), RetryAfter(7)], 1, "retry", 7, False),
        ([RetryAfter(7), RetryAfter(3)], 1, "retry", 3, False),
        ([RetryAfter(7)], 3, "dead", 0, False),
        ([Free(7)], 3, "retry", 7, True),
        ([Free(7), Free(3)], 3, "retry", 3, True),
        ([Free(7), RetryAfter(9)], 2, "retry", 7, False),
        ([Free(7), ValueError()], 3, "dead", 0, False),
        ([Permanent(), Free(7)], 3, "retry", 7, True),
    ],
)
def test_several_handlers_errors_make_one_verdict(
    errors: list[Exception], attempt: int, outcome: str, delay: float, uncounted: bool
) -> None:
    """P2: none takes the retry of another away, and none hides that another has failed."""
    verdict = judge(errors, attempt, max_attempts=3)
    assert (verdict.outcome, verdict.delay, verdict.uncounted) == (outcome, delay, uncounted)
