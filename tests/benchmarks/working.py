"""How fast workers process events whose handler does nothing, and how soon they begin."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from app.embedded import EmbeddedServer
from app.event import identify, read_envelope
from app.inbox import Delivery, Inbox
from app.intake import Intake
from app.samples import sample
from tests.benchmarks import load
from tests.benchmarks.processes import KEY, cpu_seconds, descendants, environment, running, serving
from tests.support import wait_until
from tests.support.stack import make_settings

START_PER_SECOND = 20.0
_RQ = ("rq.cli", "worker", "other", "--quiet", "--serializer", "rq.serializers.JSONSerializer")


@dataclass(frozen=True)
class Worked:
    """One contender's figures in one round."""

    label: str
    per_second: float
    cpu_us: float


def rounds(server: EmbeddedServer, number: int, count: int) -> Iterator[Worked]:
    """Every kind of worker once a round; the slow ones get fewer jobs."""
    with Redis.from_url(server.url) as redis:
        redis.config_set("appendfsync", "no")
        for _ in range(count):
            yield _rq(server, redis, "stock rq worker", _RQ, max(20, number // 60))
            yield _rq(server, redis, "RQ SimpleWorker", (*_RQ, "--worker-class", "rq.SimpleWorker"), number // 15)
            yield _jobhook(server, redis, number)


def _rq(server: EmbeddedServer, redis: "Redis", label: str, command: tuple[str, ...], number: int) -> Worked:
    redis.flushall()
    queue = Queue("other", connection=redis, serializer=JSONSerializer)
    for _ in range(number):
        queue.enqueue("json.loads", "{}", result_ttl=0)
    return _measure(server, label, [*command, "--url", server.url], number, lambda: redis.keys("rq:job:*") == [])


def _jobhook(server: EmbeddedServer, redis: "Redis", number: int) -> Worked:
    redis.flushall()
    fill(server, number)
    inbox = Inbox(redis, make_settings(server.url))
    return _measure(server, "Jobhook", ["workers"], number, lambda: inbox.stats().states["done"] == number)


def _measure(
    server: EmbeddedServer, label: str, command: list[str], number: int, is_done: Callable[[], bool]
) -> Worked:
    with (
        Redis.from_url(server.url) as redis,
        running(command, environment(server.url, JOBHOOK_WORKERS="1")) as process,
    ):
        wait_until(lambda: _left(redis) < number, f"{label} to begin")  # its start is not measured
        before, begun, left = _cpu(process.pid), perf_counter(), _left(redis)
        wait_until(is_done, label, patience=120)
        seconds, cpu = perf_counter() - begun, _cpu(process.pid) - before
    return Worked(label, left / seconds, cpu / left * 1e6)


def _cpu(pid: int) -> float:
    return sum(map(cpu_seconds, descendants(pid)))


def _left(redis: "Redis") -> int:
    return int(redis.llen("rq:queue:other")) + int(redis.llen("rq:queue:jobhook"))


def fill(server: EmbeddedServer, number: int, batch: int = 2000) -> None:
    """Puts so many events into the inbox."""
    settings = make_settings(server.url, durability="memory", ack_budget=1.9)

    async def accept() -> None:
        intake = Intake(settings)
        for begin in range(0, number, batch):
            await asyncio.gather(*(intake.accept(_delivery()) for _ in range(min(batch, number - begin))))
        await intake.close()

    asyncio.run(accept())


def _delivery() -> Delivery:
    body = sample("job.created")
    identity = identify(body, read_envelope(body).event_id)
    return Delivery(identity.id, identity.digest, b'{"type":"job.created"}', body)


def start_latencies(server: EmbeddedServer, seconds: float) -> tuple[float, float]:
    """Milliseconds from recorded to handler start at `START_PER_SECOND`: p50 and p99."""
    with Redis.from_url(server.url) as redis:
        redis.flushall()
        redis.config_set("appendfsync", "always")
        env = environment(server.url, JOBHOOK_WORKERS="2")
        prepared = load.requests(int(seconds * START_PER_SECOND), KEY.encode())
        with serving(["app", "serve"], env) as (_, port), running(["workers"], env):
            wait_until(lambda: redis.scard("rq:workers") == 2, "the workers")
            load.run(port, prepared, connections=2, per_second=START_PER_SECOND)
            inbox = Inbox(redis, make_settings(server.url))
            wait_until(lambda: inbox.stats().states["done"] == len(prepared), "the events")
            waits = [record.attempts[0]["started"] - record.received * 1000 for record in inbox.newest()]
    cuts = quantiles(waits, n=100)
    return cuts[49], cuts[98]
