"""Which handlers the workers know, and which ones open events tell of that are not among them.

Finished handlers and steps are recorded under the handler's name. Under another name, what is waiting runs again;
and a handler that is gone leaves its events waiting for it. So both are looked for when workers start, and by
`jobhook doctor`.
"""

from collections import Counter
from collections.abc import Set
from typing import Any, Final

import orjson
from redis import Redis

from app.inbox.inbox import PREFIX
from app.inbox.record import handlers_in

KEY: Final = f"{PREFIX}handlers"
MOST_EVENTS: Final = 1000
"""Open events looked at, the oldest first: some 10 ms of the server's time."""


def announce(redis: "Redis", names: Set[str]) -> None:
    """Makes these the handlers that the workers know."""
    redis.set(KEY, orjson.dumps(sorted(names)))


def known(redis: "Redis") -> set[str] | None:
    """The handlers that the workers started last know; None if none have said so yet."""
    names: Any = redis.get(KEY)
    return None if names is None else set(orjson.loads(names))


def vanished(redis: "Redis", names: Set[str]) -> dict[str, int]:
    """The handlers that open events tell of, but not these; and how many events each."""
    ids: Any = redis.zrange(f"{PREFIX}open", 0, MOST_EVENTS - 1)
    with redis.pipeline(transaction=False) as pipeline:
        for id in ids:
            pipeline.hkeys(f"{PREFIX}event:{id.decode()}")
        records = pipeline.execute()
    found: Counter[str] = Counter()
    for fields in records:
        begun, _ = handlers_in(field.decode() for field in fields)
        found.update(begun - names)
    return dict(sorted(found.items()))
