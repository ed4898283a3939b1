"""When a failed event is tried again."""

import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import retry
from workers.retry import JITTER, LONGEST_WAIT_SECONDS, Permanent, RetryAfter, judge, span, wait

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


def test_the_span_of_the_attempts_is_that_of_the_schedule() -> None:
    assert span(1) == 0
    assert span(12) == sum(map(scheduled, range(1, 12)))


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


Expected = tuple[int, float | None]
"""Attempts used up after the error, and the wait; None for giving up."""


@pytest.mark.parametrize(
    ("error", "used", "expected"),
    [
        (Permanent(), 0, (1, None)),
        (RetryAfter(7), 0, (1, 7)),
        (RetryAfter(7), 2, (3, None)),
        (RetryAfter(7, counts=False), 2, (2, 7)),
        (Free(7), 0, (0, 7)),
        (Free(7), 2, (2, 7)),
        (Free(7, counts=True), 0, (1, 7)),
        (ValueError(), 2, (3, None)),
    ],
)
def test_an_error_decides_what_follows(error: Exception, used: int, expected: Expected) -> None:
    verdict = judge(error, used, max_attempts=3)
    assert (verdict.used, verdict.delay) == expected
    assert bool(verdict.why) == (verdict.delay is None)


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("of a task group", errors)


@pytest.mark.parametrize(
    ("error", "used", "expected"),
    [
        (group(Permanent()), 0, (1, None)),
        (group(Permanent(), group(group(Permanent()), Permanent())), 0, (1, None)),
        (group(group(group(RetryAfter(7)))), 0, (1, 7)),
        (group(Free(7)), 2, (2, 7)),
        (group(Free(7), Free(3)), 2, (2, 7)),
        (group(Permanent(), RetryAfter(7)), 0, (1, 7)),
        (group(Permanent(), Free(7)), 2, (2, 7)),
        (group(Free(7), RetryAfter(3)), 0, (1, 7)),
        (group(Free(7), RetryAfter(9)), 2, (3, None)),
        (group(KeyboardInterrupt(), Permanent()), 2, (3, None)),
    ],
)
def test_of_an_exception_group_the_leaves_are_judged(error: BaseException, used: int, expected: Expected) -> None:
    """However deep. None of them takes the retry of another away, or has it come sooner than it asked for."""
    verdict = judge(error, used, max_attempts=3)
    assert (verdict.used, verdict.delay) == expected


def test_a_short_wait_in_a_group_does_not_burn_the_attempts_of_the_rest() -> None:
    verdict = judge(group(Free(0.5), ValueError()), 6, max_attempts=12)
    assert verdict.delay
    assert verdict.delay >= scheduled(7) * (1 - JITTER)


def test_a_group_nested_deeper_than_python_recurses_is_judged() -> None:
    error: BaseException = Permanent()
    for _ in range(5000):
        error = group(error)
    assert judge(error, 0, max_attempts=3).delay is None


def test_the_cause_of_an_error_is_not_judged() -> None:
    error = ValueError()
    error.__cause__ = Permanent()
    assert judge(error, 0, max_attempts=3).delay is not None


class Vague(RetryAfter):
    """Says nothing of how long."""

    def __init__(self, **attributes: object) -> None:
        Exception.__init__(self)
        vars(self).update(attributes)


@pytest.mark.parametrize("error", [Vague(), Vague(seconds=None), Vague(seconds=math.nan), Vague(seconds=-1)])
def test_a_wait_of_no_length_goes_by_the_schedule(error: Vague) -> None:
    verdict = judge(error, 0, max_attempts=3)
    assert verdict.delay == pytest.approx(scheduled(1), rel=JITTER + 0.01)
