"""The workers: they process what the receiver has recorded, and heal what was left unfinished.

What handlers need is here: `from workers import on, on_dead, Event, JobsiteOn, AsyncJobsiteOn, Permanent, RetryAfter`.
"""

from typing import TYPE_CHECKING, Any

from workers.event import Event
from workers.registry import on, on_dead
from workers.retry import Permanent, RetryAfter

if TYPE_CHECKING:
    from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn

__all__ = ["AsyncJobsiteOn", "Event", "JobsiteOn", "Permanent", "RetryAfter", "on", "on_dead"]


def __getattr__(name: str) -> Any:
    """The API's clients, imported when they are asked for: httpx and what they stand on take time."""
    if name not in {"AsyncJobsiteOn", "JobsiteOn"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workers import jobsiteon  # noqa: PLC0415 - as above; and it needs this package

    return getattr(jobsiteon, name)
