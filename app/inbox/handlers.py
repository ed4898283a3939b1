"""Which handlers the workers know, and which ones open events tell of that are not among them.

Finished handlers and steps are recorded under the handler's name. Under another name, what is waiting runs again;
and a handler that is gone leaves its events waiting for it. So both are looked for when workers start, and by
`jobhook doctor`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from fnmatch import translate
from typing import Any, Final

import orjson
from redis import Redis

from app.inbox.inbox import PREFIX
from app.inbox.record import handlers_in

KEY: Final = f"{PREFIX}handlers"
MOST_EVENTS: Final = 1000
"""Open events looked at, the oldest first: some 10 ms of the server's time."""
MOST_WAITING: Final = 20_000
"""Open events counted by handler; in steps of `MOST_EVENTS`, so that receivers need not wait."""


def wanted(pattern: str) -> re.Pattern[str]:
    """What the types of events match that a handler wants. They are to be folded (`str.casefold`) before."""
    return re.compile(translate(pattern.casefold()))


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


def waiting(redis: "Redis", patterns: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many open events each of these handlers has yet to finish, by name; given the patterns each wants.

    Of more than `MOST_WAITING` open events the oldest are looked at.
    """
    matchers = {name: [wanted(pattern) for pattern in texts] for name, texts in patterns.items()}
    found = dict.fromkeys(matchers, 0)
    for type, fields in _open(redis):
        _, finished = handlers_in(fields)
        for name, matching in matchers.items():
            if name not in finished and any(pattern.match(type.casefold()) for pattern in matching):
                found[name] += 1
    return found


def _open(redis: "Redis") -> Iterator[tuple[str, list[str]]]:
    """The type of each open event, and the names of its record's fields."""
    for start in range(0, MOST_WAITING, MOST_EVENTS):
        ids: Any = redis.zrange(f"{PREFIX}open", start, start + MOST_EVENTS - 1)
        with redis.pipeline(transaction=False) as pipeline:
            for id in ids:
                pipeline.hget(f"{PREFIX}event:{id.decode()}", "meta")
                pipeline.hkeys(f"{PREFIX}event:{id.decode()}")
            replies = pipeline.execute(raise_on_error=False)
        for meta, names in zip(replies[::2], replies[1::2], strict=True):
            with suppress(ValueError, TypeError, LookupError):  # what cannot be read, the sweep sets aside
                yield str(orjson.loads(meta)["type"]), [name.decode() for name in names]
        if len(ids) < MOST_EVENTS:
            return
