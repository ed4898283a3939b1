"""Says which handlers there are, and which ones are missed by events that are still open."""

from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.errors import describe
from app.inbox import handlers
from workers.registry import Registry
from workers.signature import written_at

log = structlog.stdlib.get_logger(__name__)


def described(registry: Registry) -> list[dict[str, Any]]:
    """Each handler: its name, the patterns it wants, where it is written, and its options."""
    found: dict[str, dict[str, Any]] = {}
    for handler in registry.handlers:
        entry = found.setdefault(
            handler.name,
            {"handler": handler.name, "wants": [], "at": written_at(handler.function), "options": handler.options},
        )
        entry["wants"].append(handler.wants)
        entry["options"] = max(entry["options"], handler.options, key=len)
    return list(found.values())


def show(registry: Registry) -> None:
    """A line in the log for each handler."""
    for entry in described(registry):
        log.info("handler", **entry | {"wants": ", ".join(entry["wants"])})
    for one in registry.of_the_dead:
        log.info("handler of the dead", handler=one.name, wants=one.wants, at=written_at(one.function))


def announce(redis: "Redis", registry: Registry) -> None:
    """Lets `jobhook doctor` know which handlers there are; warns of those that have been renamed or removed.

    While Redis is away, neither: the workers wait for it, and the doctor goes by what was said last.
    """
    if not registry.handlers:
        log.warning("there are no handlers: events are recorded, and count as done")
    try:
        handlers.announce(redis, registry.names)
        vanished = handlers.vanished(redis, registry.names)
    except RedisError as error:
        log.warning("handlers not announced", **describe(error))
        return
    for name, events in vanished.items():
        log.warning("handler is not there, but open events have been begun by it", handler=name, events=events)
