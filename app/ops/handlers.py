"""Whether the handlers that open events tell of are still there, for `jobhook doctor`."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from app.inbox import handlers
from app.ops.problems import GONE_HANDLERS, NO_HANDLERS, Check


def check(redis: "Redis") -> Iterator[Check]:
    """One finding, as soon as workers have said which handlers they have."""
    try:
        known = handlers.known(redis)
        vanished = {} if known is None else handlers.vanished(redis, known)
    except RedisError:
        return  # other findings say so
    if vanished:
        names = ", ".join(f"{name} ({events})" for name, events in vanished.items())
        yield GONE_HANDLERS.found(names=names)
    elif known is not None and not known:
        yield NO_HANDLERS.found()
    elif known:
        yield Check("handlers", "ok", f"{len(known)} known to the workers, none missing")
