"""The workers: they process what the receiver has recorded, and heal what was left unfinished.

What a handler needs is here: `from workers import on, Event, JobsiteOn, AsyncJobsiteOn, Permanent, RetryAfter`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workers.registry import on
from workers.retry import Permanent, RetryAfter

if TYPE_CHECKING:
    from workers.event import Event
    from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn

__all__ = ["AsyncJobsiteOn", "Event", "JobsiteOn", "Permanent", "RetryAfter", "on"]

_LATER = {"Event": "workers.event", "JobsiteOn": "workers.jobsiteon", "AsyncJobsiteOn": "workers.jobsiteon"}
"""Imported when they are asked for: they need the modules that need this one, and the API's clients take time."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
