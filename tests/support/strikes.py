"""Lets a handler's time limit strike again and again in the middle of things, to see what is damaged.

    python -m tests.support.strikes pack|foreign|redis|api COUNT

A process of its own, because what it may find is that the process dies. Prints what is left in use at the end.
"""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import structlog
from redis import Redis
from redis.connection import HiredisRespSerializer

from app.config.sources import load_settings
from app.inbox.inbox import Inbox, connect
from app.store.packing import pack
from app.store.pools import drop_connections
from workers.jobsiteon import JobsiteOn
from workers.timelimit import HandlerTimeout, time_limit

LONGEST_SECONDS = 0.004
"""The strikes come after 0 to so many seconds: about as long as a call takes that has to connect."""


def strike(count: int, act: Callable[[], object], clean_up: Callable[[], object] = lambda: None) -> None:
    """Repeats something until it has been struck so many times.

    Each time in a context of its own, as the processor runs handlers: a strike may cut short what would have set the
    context back, such as a deadline that everything after it would have inherited.
    """

    def repeat() -> None:
        while True:
            act()

    rng = random.Random(1)  # noqa: S311 - moments to strike
    strikes = 0
    while strikes < count:
        limit = time_limit(rng.uniform(0, LONGEST_SECONDS) + 1e-6)
        with suppress(HandlerTimeout), limit:
            copy_context().run(repeat)
        strikes += limit.has_struck
        clean_up()


def in_use(redis: "Redis") -> int:
    return len(redis.connection_pool._in_use_connections)


def raw(count: int) -> int:
    """As `Pipe` packs, and redis-py on our connections: with nothing of redis-py's around it."""
    strike(count, lambda: pack(("EVALSHA", "sha", 1, 2**40, 1.5)))
    return 0


def foreign(count: int) -> int:
    """A connection that a handler has opened itself."""
    packer: Any = HiredisRespSerializer()
    strike(count, lambda: packer.pack("EVALSHA", "sha", 1, 2**40, 1.5))
    return 0


def redis(count: int) -> int:
    settings = load_settings()
    with connect(settings) as client:
        inbox = Inbox(client, settings)
        client.hset("jobhook:event:x", mapping={"state": "running", "token": "7"})

        def act() -> None:
            assert inbox.record_step("x", 7, "step", b"1")
            with client.pipeline(transaction=False) as pipeline:
                assert pipeline.echo("a").echo("b").execute() == [b"a", b"b"]
            assert client.echo("c") == b"c"

        strike(count, act, lambda: drop_connections(client))
        act()
        return in_use(client)


def api(count: int) -> int:
    with JobsiteOn(load_settings()) as client:

        def act() -> None:
            assert client.contacts.get("con_1001")["id"] == "con_1001"
            assert client.contacts.get("con_1002")["id"] == "con_1002"

        strike(count, act)
        act()
        pool = client._wire._inner._pool
        active = sum(not connection.is_idle() for connection in pool.connections)
        return active + in_use(client._cache._redis) + in_use(client._departures._rate._redis)


def main() -> None:
    kind, count = sys.argv[1:]
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    sys.unraisablehook = lambda _: None  # a strike in a `__del__`: there is another a second later
    print({"pack": raw, "foreign": foreign, "redis": redis, "api": api}[kind](int(count)))  # noqa: T201


if __name__ == "__main__":
    main()
