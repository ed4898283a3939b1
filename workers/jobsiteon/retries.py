"""Trying again within one call: exponential backoff with jitter, by stamina.

stamina rather than a retrying transport (httpx-retries): it decides on our own errors, so also on what
only shows in the body; it is the same for `for` and `async for`; and what it waits for is seen in the log.

- GETs: after a 5xx, a 429 that asks for a short wait, and whatever kept an answer from being complete.
- Writes: only if JobsiteOn has certainly not carried them out, that is after a 429, or if there was no
  connection. JobsiteOn does not document that it knows `Idempotency-Key`, so the key is sent, not relied on.

Each try counts against the rate limit, and all together keep the deadline.
"""

from collections.abc import Callable
from time import monotonic
from typing import TypedDict

from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import RateLimited, ServerError, Unreachable

SHORT_WAIT_SECONDS = 2.0
"""Up to this a call sleeps; for longer the event is given back, and the worker does something else."""


class Schedule(TypedDict):
    """When to try again, in seconds."""

    attempts: int
    timeout: None
    wait_initial: float
    wait_max: float
    wait_jitter: float


SCHEDULE = Schedule(attempts=4, timeout=None, wait_initial=0.1, wait_max=1.0, wait_jitter=0.5)
"""Within 0.1 to 0.6, 0.2 to 0.7, 0.4 to 0.9 s: a restart behind a load balancer, not an outage."""
LONGEST_PAUSE_SECONDS = SCHEDULE["wait_max"] + SCHEDULE["wait_jitter"]


class Deadline:
    """When a call has to be over, all its tries and waits together."""

    def __init__(self, seconds: float) -> None:
        self.at = monotonic() + seconds
        """By the monotonic clock."""

    @property
    def left(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - monotonic()


def backoff(call: Call, deadline: Deadline) -> Callable[[Exception], bool | float]:
    """Stamina's hook: whether an error is worth another try, and after how many seconds if it says so."""

    def decide(error: Exception) -> bool | float:
        wait: bool | float = False
        match error:
            case RateLimited(status=429, seconds=seconds):
                wait = seconds
            case ServerError(retry_after=seconds) if call.is_safe:
                wait = True if seconds is None else seconds
            case Unreachable(sent=sent) if call.is_safe or not sent:
                wait = True
        if wait is False or deadline.left <= (LONGEST_PAUSE_SECONDS if wait is True else wait):
            return False
        return wait if wait is True or wait <= SHORT_WAIT_SECONDS else False

    return decide
