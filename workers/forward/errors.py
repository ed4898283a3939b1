"""What keeps an event from being forwarded. Each is retried by the schedule.

    JobhookError
    └── ForwardError
        ├── DestinationUnreachable       no answer: not resolved, not connected, not in time, not HTTP
        ├── Rejected          an answer other than 2xx
        └── ForbiddenAddress  the name leads to an address that is never forwarded to

No message carries a query, a secret or anything that the other side has sent but its status (P7).
Not errors but orders to the worker: `CircuitOpen`, `Throttled` and `TooLate`, which are `RetryAfter`; and
a 410 is `Permanent`.
"""

from app.errors import JobhookError
from workers.retry import RetryAfter


class ForwardError(JobhookError):
    """The event could not be forwarded."""


class DestinationUnreachable(ForwardError):
    """The destination did not answer."""


class Rejected(ForwardError):
    """The destination answered, but not with 2xx."""


class ForbiddenAddress(ForwardError):
    """The destination's name leads to an address that is never forwarded to."""


class Throttled(RetryAfter):
    """The destination asked for a pause."""

    def __init__(self, destination: str, status: int, seconds: float) -> None:
        super().__init__(seconds)
        self.args = (f"{destination} answered {status}: to be tried again in {seconds:.0f} s",)


class TooLate(RetryAfter):
    """The event's other handlers have left too little of its time: it is sent in an attempt of its own, at once."""

    counts = False

    def __init__(self, destination: str) -> None:
        super().__init__(0)
        self.args = (f"{destination}: too little time was left to send it, so it is sent in an attempt of its own",)


class CircuitOpen(RetryAfter):
    """The destination has failed too often: it is left alone for a while, at no cost to the event."""

    counts = False

    def __init__(self, destination: str, seconds: float) -> None:
        super().__init__(seconds)
        self.args = (f"{destination} has failed too often: left alone for {seconds:.0f} s",)
