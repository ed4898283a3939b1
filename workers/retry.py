"""When a handler that has failed is tried again, and how it steers that.

Each handler of an event has its own attempts and its own schedule:

    attempt that failed   wait before the next   time since the first
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
With the default of 12 attempts a handler gives up after some 28 hours. A wait that is nobody's fault, as for
a rate limit, uses up no attempt; the age of the event (JOBHOOK_RETRY_FOR) bounds those. An event is dead when
each of its handlers has either finished or given up, and at least one has given up.
"""

import random
from dataclasses import dataclass

FIRST_WAIT_SECONDS = 5.0
FACTOR = 3
LONGEST_WAIT_SECONDS = 8 * 3600.0
LONGEST_RETRY_AFTER_SECONDS = 30 * 86400.0
JITTER = 0.2

_RANDOM = random.SystemRandom()  # not one that forked workers would share the state of


class Permanent(Exception):
    """Raised by a handler: trying again is useless, the handler gives up at once."""


class RetryAfter(Exception):
    """Raised by a handler: try again after so many seconds, whatever the schedule says."""

    counts = True
    """Whether it uses up an attempt. A wait that is nobody's fault, as for a rate limit, does not."""

    def __init__(self, seconds: float, *, counts: bool | None = None) -> None:
        """`seconds` from 0 to 30 days.

        It uses up an attempt, since the handler has been run in vain; with `counts=False` it does not, and the
        handler is run again and again until the event's age ends that.
        """
        if not 0 <= seconds <= LONGEST_RETRY_AFTER_SECONDS:
            raise ValueError("RetryAfter takes from 0 seconds to 30 days")
        super().__init__(f"retry after {seconds:g} s")
        self.seconds = seconds
        if counts is not None:
            self.counts = counts


def wait(attempt: int, rng: random.Random = _RANDOM) -> float:
    """Seconds to wait after the given attempt (from 1) has failed."""
    return _scheduled(attempt) * rng.uniform(1 - JITTER, 1 + JITTER)


def span(attempts: int) -> float:
    """Seconds from the first of so many attempts to the last, by the schedule."""
    return sum(map(_scheduled, range(1, attempts)))


def _scheduled(attempt: int) -> float:
    # The exponent is bounded so that a thousandth attempt does not overflow.
    wait: float = min(FIRST_WAIT_SECONDS * FACTOR ** min(attempt - 1, 20), LONGEST_WAIT_SECONDS)
    return wait


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows for a handler from its failure."""

    used: int
    """Attempts that it has used up by now."""
    delay: float | None
    """Seconds until it is tried again; None: it gives up."""
    why: str = ""
    """The reason for giving up."""


def judge(error: BaseException, used: int, max_attempts: int) -> Verdict:
    """What follows from an error of a handler that has used up so many attempts before.

    Of an exception group, as a `TaskGroup` raises it, the leaves are judged together: it is final only if all of
    them are, because one that is must not take the retry of another away. It uses up an attempt if one of them
    does. And the longest of their waits counts: a short one would have the attempts of the others used up in no time.
    """
    failures = _not_final(error)
    if not failures:
        return Verdict(used + 1, None, "trying again is useless")
    if any(_counts(leaf) for leaf in failures):
        used += 1
        if used >= max_attempts:
            return Verdict(used, None, f"all {max_attempts} attempts are used up")
    return Verdict(used, max(_wait(leaf, used) for leaf in failures))


def is_mere_wait(error: BaseException) -> bool:
    """Whether a handler that has raised an error is tried again without having used up an attempt."""
    failures = _not_final(error)
    return bool(failures) and not any(map(_counts, failures))


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in an exception group, however deep; of any other error, the error itself."""
    found: list[BaseException] = []
    to_see = [error]
    while to_see:
        seen = to_see.pop()
        if isinstance(seen, BaseExceptionGroup) and not isinstance(seen, Permanent | RetryAfter):
            to_see += reversed(seen.exceptions)
        else:
            found.append(seen)
    return found


def _not_final(error: BaseException) -> list[BaseException]:
    return [leaf for leaf in leaves(error) if not isinstance(leaf, Permanent)]


def _counts(error: BaseException) -> bool:
    return not isinstance(error, RetryAfter) or error.counts


def _wait(error: BaseException, used: int) -> float:
    # A subclass may have left the seconds out, or have got them from somewhere else.
    asked = getattr(error, "seconds", None) if isinstance(error, RetryAfter) else None
    if isinstance(asked, int | float) and 0 <= asked <= LONGEST_RETRY_AFTER_SECONDS:
        return asked
    return wait(max(used, 1))
