"""The workers: they process what the receiver has recorded, and heal what was left unfinished."""

from workers.event import Event
from workers.registry import on
from workers.retry import Permanent, RetryAfter

__all__ = ["Event", "Permanent", "RetryAfter", "on"]
