"""How fast deliveries are accepted, beside what a user would otherwise write."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles

from redis import Redis

from app.cli.embedded import EmbeddedServer
from tests.benchmarks import load
from tests.benchmarks.processes import KEY, PYTHON_M, cpu_seconds, environment, rss_bytes, serving
from tests.benchmarks.rivals import FASTIFY

WARM_UP = 500
_UVICORN = (*PYTHON_M, "uvicorn", "--no-access-log", "--log-level", "warning")
_SERVE = (*PYTHON_M, "app", "serve")
_BASELINES = "tests.benchmarks.baselines"
LATENCY_PER_SECOND = 50.0


@dataclass(frozen=True)
class Contender:
    """An application, and the durability it runs with."""

    name: str
    command: tuple[str, ...]
    fsync: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    keeps: bool = False
    """Whether what it answers 200 has to be in the inbox afterwards."""

    @property
    def label(self) -> str:
        return f"{self.name}, fsync" if self.fsync else self.name


_MEMORY = (("JOBHOOK_DURABILITY", "memory"),)
CONTENDERS: tuple[Contender, ...] = (
    Contender("bare ASGI", (*_UVICORN, f"{_BASELINES}:bare")),
    Contender("FastAPI hello", (*_UVICORN, "--factory", f"{_BASELINES}:hello")),
    Contender("FastAPI + RQ, as in tutorials", (*_UVICORN, "--factory", f"{_BASELINES}:naive")),
    Contender("FastAPI + RQ, unique", (*_UVICORN, "--factory", f"{_BASELINES}:unique")),
    Contender("Jobhook", _SERVE, settings=_MEMORY, keeps=True),
    Contender("FastAPI + RQ, as in tutorials", (*_UVICORN, "--factory", f"{_BASELINES}:naive"), fsync=True),
    Contender("FastAPI + RQ, unique", (*_UVICORN, "--factory", f"{_BASELINES}:unique"), fsync=True),
    Contender("Jobhook", _SERVE, fsync=True, keeps=True),
)
RIVALS: tuple[Contender, ...] = (
    Contender("Fastify + BullMQ", FASTIFY),
    Contender("Fastify + BullMQ", FASTIFY, fsync=True),
)


@dataclass(frozen=True)
class Accepted:
    """One contender's figures in one round."""

    label: str
    per_second: float
    cpu_us: float
    p99_ms: float
    """At saturation."""
    calm_p99_ms: float
    """At `LATENCY_PER_SECOND`."""
    rss_mb: float


def rounds(server: EmbeddedServer, contenders: Sequence[Contender], number: int, count: int) -> Iterator[Accepted]:
    """Every contender once a round, one after the other, so that a slow moment meets them all."""
    with Redis.from_url(server.url) as redis:
        for _ in range(count):
            for contender in contenders:
                yield _measure(contender, server, redis, number)


def _measure(contender: Contender, server: EmbeddedServer, redis: "Redis", number: int) -> Accepted:
    redis.flushall()
    redis.config_set("appendfsync", "always" if contender.fsync else "no")
    prepared = load.requests(WARM_UP + number, KEY.encode())
    calm = load.requests(int(LATENCY_PER_SECOND * 3), KEY.encode())
    with serving(contender.command, environment(server.url, **dict(contender.settings))) as (pid, port):
        load.run(port, prepared[:WARM_UP])
        before = cpu_seconds(pid)
        loaded = load.run(port, prepared[WARM_UP:])
        cpu = cpu_seconds(pid) - before
        calmly = load.run(port, calm, connections=4, per_second=LATENCY_PER_SECOND)
        rss = rss_bytes(pid)
        assert set(loaded.statuses) == {b"200"}, f"{contender.label}: {loaded.statuses}"
        if contender.keeps:
            _check(redis, port, prepared, calm)
    return Accepted(
        contender.label,
        number / loaded.seconds,
        cpu / number * 1e6,
        _p99(loaded.latencies),
        _p99(calmly.latencies),
        rss / 1e6,
    )


def _check(redis: "Redis", port: int, *sent: list[bytes]) -> None:
    """What was answered 200 is queued, and a replay queues nothing."""
    expected = sum(map(len, sent))
    assert redis.zcard("jobhook:queued") == redis.llen("rq:queue:jobhook") == expected
    load.run(port, sent[0][:WARM_UP])
    assert redis.llen("rq:queue:jobhook") == expected


def _p99(latencies: list[float]) -> float:
    return quantiles(latencies, n=100)[98] * 1000
