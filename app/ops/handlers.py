"""Whether the handlers that open events tell of are still there, for `jobhook doctor`."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from app.inbox import handlers
from app.ops.health import Check

REMEDY = (
    'bring them back, or keep the old name: @on(…, name="…"); under a new one, what they have finished runs again, '
    "and what they have not ends as dead"
)


def check(redis: "Redis") -> Iterator[Check]:
    """One finding, as soon as workers have said which handlers they have."""
    try:
        known = handlers.known(redis)
        vanished = {} if known is None else handlers.vanished(redis, known)
    except RedisError:
        return  # other findings say so
    if vanished:
        names = ", ".join(f"{name} ({events})" for name, events in vanished.items())
        finding = f"open events have been begun by handlers that are not there any more: {names}"
        yield Check("handlers", "warn", finding, REMEDY)
    elif known is not None and not known:
        remedy = "put a module into workers/handlers/, or name yours in JOBHOOK_HANDLERS"
        yield Check("handlers", "warn", "there are none: events are recorded, and count as done", remedy)
    elif known:
        yield Check("handlers", "ok", f"{len(known)} known to the workers, none missing")
