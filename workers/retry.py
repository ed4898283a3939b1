"""When a failed event is tried again, and how a handler steers that.

    attempt that failed   wait before the next   time since received
             1                   5 s                    5 s
             2                  15 s                   20 s
             3                  45 s                    1 min
             4                   2 min                  3 min
             5                   7 min                 10 min
             6                  20 min                 30 min
             7                   1 h                    1.5 h
             8                   3 h                    4.5 h
             9 and on            8 h                   12.5 h, then 8 h more each

Each wait is up to a fifth longer or shorter, so that what failed together is not tried again together.
With the default of 12 attempts an event is dead after some 28 hours.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.inbox.record import Outcome

FIRST_WAIT_SECONDS = 5.0
FACTOR = 3
LONGEST_WAIT_SECONDS = 8 * 3600.0
JITTER = 0.2

_RANDOM = random.SystemRandom()  # not one that forked workers would share the state of


class Permanent(Exception):
    """Raised by a handler: trying again is useless, the event is dead at once."""


class RetryAfter(Exception):
    """Raised by a handler: try again after so many seconds, whatever the schedule says."""

    counts = True
    """Whether it uses up an attempt. A wait that is nobody's fault, as for a rate limit, does not."""

    def __init__(self, seconds: float) -> None:
        if not 0 <= seconds <= 30 * 86400:
            raise ValueError("RetryAfter takes from 0 seconds to 30 days")
        super().__init__(f"retry after {seconds:g} s")
        self.seconds = seconds


def wait(attempt: int, rng: random.Random = _RANDOM) -> float:
    """Seconds to wait after the given attempt (from 1) has failed."""
    # The exponent is bounded so that a thousandth attempt does not overflow.
    scheduled: float = min(FIRST_WAIT_SECONDS * FACTOR ** min(attempt - 1, 20), LONGEST_WAIT_SECONDS)
    return scheduled * rng.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an attempt."""

    outcome: Outcome
    delay: float = 0.0
    """Seconds until the next attempt."""
    uncounted: bool = False
    """Whether the attempt does not use up one of those allowed."""
    error: BaseException | None = None
    """The one that decided."""


def judge(errors: Sequence[BaseException], attempt: int, max_attempts: int) -> Verdict:
    """What follows from the errors of an event's handlers in the given attempt (from 1).

    A handler that has failed for good must not take the retry of another away: the event is dead only
    if none is worth another try. The soonest of the waits counts.
    """
    if not errors:
        return Verdict("done")
    failures = [error for error in errors if not isinstance(error, Permanent)]
    if not failures:
        return Verdict("dead", error=errors[0])
    uncounted = all(isinstance(error, RetryAfter) and not error.counts for error in failures)
    if attempt >= max_attempts and not uncounted:
        return Verdict("dead", error=failures[0])
    waits = [error.seconds if isinstance(error, RetryAfter) else wait(attempt) for error in failures]
    return Verdict("retry", min(waits), uncounted, failures[0])
