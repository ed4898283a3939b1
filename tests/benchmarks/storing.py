"""What stored events cost: memory, and the time of what must not depend on their number."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.delivery.samples import sample
from app.inbox.inbox import Inbox
from app.inbox.record import Ended
from tests.benchmarks.working import fill
from tests.support import wait_until
from tests.support.stack import make_settings

MARKED = 20_000
ATTEMPT = b'{"attempt":1,"started":1795000000000,"ended":1795000000001,"worker":"host-0123456789","outcome":"done"}'


@dataclass(frozen=True)
class Stored:
    """The figures with so many open events."""

    events: int
    marker_bytes: float
    event_bytes: float
    """Of a finished event, over its body; with its entries in the indexes."""
    accept_ratio: float
    """Time to accept a thousand with that many stored, over the time with none."""
    sweep_ms: float
    list_ms: float
    """The newest 50."""


def measure(server: EmbeddedServer, events: int) -> Stored:
    """Fills the inbox with open events and looks at what has become slower."""
    with Redis.from_url(server.url) as redis:
        redis.config_set("appendfsync", "no")
        redis.flushall()
        inbox = Inbox(redis, make_settings(server.url))
        marker, event = _bytes_each(server, redis, inbox)
        redis.flushall()
        fill(server, 200)
        empty = _time(lambda: fill(server, 1000))
        fill(server, events)
        full = _time(lambda: fill(server, 1000))
        redis.delete("jobhook:swept")
        sweep = _time(inbox.sweep)
        listing = _time(lambda: list(islice(inbox.newest(), 50)))
        redis.flushall()
    return Stored(events, marker, event, full / empty, sweep * 1000, listing * 1000)


def _bytes_each(server: EmbeddedServer, redis: "Redis", inbox: Inbox) -> tuple[float, float]:
    """Of a marker, and of a finished event over its body: what is used once only these are left, over nothing."""
    nothing = _used(server, redis)
    fill(server, MARKED)
    assignment = inbox.work("w")
    while assignment.taken:
        assignment = inbox.work("w", Ended(assignment.taken.id, assignment.taken.token, "done", ATTEMPT))
    both = _used(server, redis) - nothing
    for key in redis.scan_iter("jobhook:event:*", count=1000):
        redis.delete(key)
    redis.delete("jobhook:done")
    markers = _used(server, redis) - nothing
    return markers / MARKED, (both - markers) / MARKED - len(sample("job.created"))


def _used(server: EmbeddedServer, redis: "Redis") -> int:
    """Bytes in use after a restart: what is stored and nothing else, in tables of the right size."""
    redis.bgrewriteaof()
    wait_until(lambda: redis.info("persistence")["aof_rewrite_in_progress"] == 0, "the log to be rewritten")
    server.stop()
    server.start()
    return int(redis.info("memory")["used_memory"])


def _time(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun
