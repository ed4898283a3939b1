"""A handler that does nothing: what remains is the worker's own cost."""

from workers import on
from workers.event import Event


@on("*")
def nothing(event: Event) -> None:
    """Wants every event."""
