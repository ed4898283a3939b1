"""How fast workers process events whose handler does nothing, and how soon they begin."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import perf_counter

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from app.cli.embedded import EmbeddedServer
from app.delivery.samples import sample
from app.inbox.inbox import Inbox
from app.inbox.record import Delivery
from app.receiver.intake import Intake
from tests.benchmarks import load
from tests.benchmarks.processes import KEY, PYTHON_M, cpu_seconds, environment, running, serving
from tests.benchmarks.rivals import BULLMQ, CELERY, HOME, TASKIQ
from tests.benchmarks.rivals import fill as rival_fill
from tests.support import wait_until
from tests.support.deliveries import received
from tests.support.processes import family
from tests.support.stack import make_settings

START_PER_SECOND = 20.0
_RQ = (*PYTHON_M, "rq.cli", "worker", "other", "--quiet", "--serializer", "rq.serializers.JSONSerializer")


@dataclass(frozen=True)
class Worked:
    """One contender's figures in one round."""

    label: str
    per_second: float
    cpu_us: float


@dataclass(frozen=True)
class Kind:
    """A kind of worker."""

    label: str
    fill: Callable[[EmbeddedServer, int], None]
    """Enqueues so many jobs that do nothing."""
    command: tuple[str, ...]
    """Starts one process that works on them."""
    left: Callable[["Redis"], int]
    """How many are not done."""
    share: float = 1.0
    """Of the jobs: the slow ones get fewer."""


def kinds() -> tuple[Kind, ...]:
    """Those that need nothing but Jobhook's own packages."""
    return (
        Kind("stock rq worker", _fill_rq, _RQ, _rq_jobs, 1 / 60),
        Kind("RQ SimpleWorker", _fill_rq, (*_RQ, "--worker-class", "rq.SimpleWorker"), _rq_jobs, 1 / 15),
        Kind("Jobhook", fill, (*PYTHON_M, "workers"), lambda redis: int(redis.zcard("jobhook:open"))),
    )


def rivals() -> tuple[Kind, ...]:
    """Those of `rivals.install()`."""
    python, home = CELERY[0], HOME
    return (
        Kind(
            "Celery, prefork -c 1",
            lambda server, number: rival_fill(server, number, python, str(home / "celery_app.py")),
            CELERY,
            lambda redis: int(redis.llen("celery")) + int(redis.hlen("unacked")),
        ),
        Kind(  # its last hundred or so are in the process already when the list is empty
            "taskiq",
            lambda server, number: rival_fill(server, number, python, str(home / "taskiq_app.py")),
            TASKIQ,
            lambda redis: int(redis.llen("taskiq")),
        ),
        Kind(
            "BullMQ, concurrency 1",
            lambda server, number: rival_fill(server, number, *BULLMQ, "fill"),
            (*BULLMQ, "work"),
            lambda redis: int(redis.llen("bull:work:wait")) + int(redis.llen("bull:work:active")),
        ),
    )


def rounds(server: EmbeddedServer, of: Sequence[Kind], number: int, count: int) -> Iterator[Worked]:
    """Every kind of worker once a round."""
    with Redis.from_url(server.url) as redis:
        redis.config_set("appendfsync", "no")
        for _ in range(count):
            for kind in of:
                redis.flushall()
                kind.fill(server, max(20, int(number * kind.share)))
                yield _measure(server, redis, kind)


def _measure(server: EmbeddedServer, redis: "Redis", kind: Kind) -> Worked:
    number = kind.left(redis)
    env = environment(server.url, JOBHOOK_WORKERS="1", RQ_REDIS_URL=server.url, PYTHONPATH=str(HOME))
    with running(kind.command, env) as process:
        wait_until(lambda: kind.left(redis) < number, f"{kind.label} to begin")  # its start is not measured
        before, begun, left = _cpu(process.pid), perf_counter(), kind.left(redis)
        wait_until(lambda: kind.left(redis) == 0, kind.label, patience=120)
        seconds, cpu = perf_counter() - begun, _cpu(process.pid) - before
    return Worked(kind.label, left / seconds, cpu / left * 1e6)


def _cpu(pid: int) -> float:
    return sum(map(cpu_seconds, family(pid)))


def _fill_rq(server: EmbeddedServer, number: int) -> None:
    with Redis.from_url(server.url) as redis:
        queue = Queue("other", connection=redis, serializer=JSONSerializer)
        for _ in range(number):
            queue.enqueue("json.loads", "{}", result_ttl=0)


def _rq_jobs(redis: "Redis") -> int:
    return len(redis.keys("rq:job:*"))


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
    return received(sample("job.created"))


def start_latencies(server: EmbeddedServer, seconds: float) -> tuple[float, float]:
    """Milliseconds from recorded to handler start at `START_PER_SECOND`: p50 and p99."""
    with Redis.from_url(server.url) as redis:
        redis.flushall()
        redis.config_set("appendfsync", "always")
        env = environment(server.url, JOBHOOK_WORKERS="2")
        prepared = load.requests(int(seconds * START_PER_SECOND), KEY.encode())
        with serving((*PYTHON_M, "app", "serve"), env) as (_, port), running((*PYTHON_M, "workers"), env):
            wait_until(lambda: redis.scard("rq:workers") == 2, "the workers")
            load.run(port, prepared, connections=2, per_second=START_PER_SECOND)
            inbox = Inbox(redis, make_settings(server.url))
            wait_until(lambda: inbox.stats().states["done"] == len(prepared), "the events")
            waits = [record.attempts[0]["started"] - record.received * 1000 for record in inbox.newest()]
    cuts = quantiles(waits, n=100)
    return cuts[49], cuts[98]
