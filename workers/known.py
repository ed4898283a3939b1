"""Says which handlers there are, and which ones are missed by events that are still open."""

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.errors import describe
from app.inbox import handlers
from workers.registry import Registry

log = structlog.stdlib.get_logger(__name__)


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
