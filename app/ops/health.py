"""What is well and what is not, for `/readyz` and `jobhook doctor`, with the remedy for each."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.sentinel import MasterNotFoundError

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import PREFIX, Inbox
from app.store.connections import SENTINEL_SCHEMES
from app.store.durability import OLDEST_SERVER, Plan, Server, plan
from app.store.server import read_server

WORKERS_SEEN_WITHIN_SECONDS = 10.0
"""Supervisors sweep every second; this leaves room for a restart."""
CLOCK_TOLERANCE_SECONDS = 5.0
LONGEST_PROBE_SECONDS = 1.0
"""How long a replica may take to confirm a write; the whole probe takes up to three times as long."""
PROBE_TTL_SECONDS = 60
FULL_FROM = 0.9
"""The share of maxmemory from which new deliveries are in danger of being refused."""

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    level: Level
    finding: str
    remedy: str | None = None


def check(settings: Settings, redis: "Redis") -> list[Check]:
    """Everything that can be found out about the Redis in use and the workers on it."""
    try:
        return list(_checks(settings, redis))
    except (AuthenticationError, NoPermissionError) as error:
        return [_unusable("does not let us in", error, "check the user and the password in REDIS_URL")]
    except MasterNotFoundError as error:
        remedy = "see that the sentinels in REDIS_URL are up, let us in, and know a primary of the service it names"
        return [_unusable("has no primary that a sentinel names", error, remedy)]
    except (RedisError, OSError) as error:
        return [_unusable("does not answer", error, "start Redis, or set REDIS_URL")]


def refuse_to_start(settings: Settings, redis: "Redis") -> None:
    """Stops a start on a server that would lose events. One that is down may still come up.

    Raises:
        ConfigError: the server may evict, or is too old.
    """
    for finding in check(settings, redis):
        if finding.name in {"version", "eviction"} and finding.level == "fail":
            raise ConfigError(f"REDIS_URL: {finding.finding}: {finding.remedy}")


def _checks(settings: Settings, redis: "Redis") -> Iterator[Check]:
    server = read_server(redis)
    yield Check("redis", "ok", "answers")
    yield _version(server)
    if not server.may_evict:  # else nothing is durable, and the next check says why
        yield _durability(settings, server, redis)
    yield _eviction(server)
    yield _memory(server)
    seconds, microseconds = redis.time()
    yield _clock(seconds + microseconds / 1e6 - time.time())
    yield _workers(Inbox(redis, settings).stats().swept_seconds_ago)


def _unusable(finding: str, error: Exception, remedy: str) -> Check:
    return Check("redis", "fail", f"{finding} ({type(error).__name__})", remedy)


def _version(server: Server) -> Check:
    if server.version < OLDEST_SERVER:
        return Check("version", "fail", f"{server.name} is too old", "use Redis 7.0 or later, or Valkey")
    return Check("version", "ok", server.name)


def _durability(settings: Settings, server: Server, redis: "Redis") -> Check:
    wanted = settings.durability
    made = plan(wanted, server, settings.ack_budget)
    if made.shortfall:
        return Check("durability", "fail", f"{wanted} is not possible", made.shortfall)
    if wanted == "memory":
        remedy = "set JOBHOOK_DURABILITY=fsync to survive a crash of Redis"
        return Check("durability", "warn", "memory: a crash of Redis may lose acknowledged events", remedy)
    tried_for = min(settings.ack_budget, LONGEST_PROBE_SECONDS)
    if wanted == "replica" and not _confirms(redis, plan(wanted, server, tried_for)):
        remedy = "see that a replica is up and follows closely, with `appendonly yes` and `appendfsync always`"
        return Check("durability", "fail", f"no replica has confirmed a write within {tried_for:g} s", remedy)
    if made.in_memory:
        remedy = "use Redis 7.2 or Valkey: as it is, primary and replica crashing at once may lose acknowledged events"
        finding = f"on the disk of the primary, but only in a replica's memory: {server.name} has no WAITAOF"
        return Check("durability", "warn", finding, remedy)
    if server.appendfsync != "always":
        remedy = "set `appendfsync always`: acknowledgements then wait milliseconds, not up to a second"
        return Check(
            "durability", "warn", f"{wanted}, waiting for `appendfsync {server.appendfsync or 'unknown'}`", remedy
        )
    if wanted == "replica":
        replicas = "1 replica" if server.replicas == 1 else f"{server.replicas} replicas"
        return Check("durability", "ok", f"on the disks of primary and replica before each answer ({replicas})")
    if settings.redis_url.startswith(SENTINEL_SCHEMES):
        remedy = "set JOBHOOK_DURABILITY=replica, and `min-replicas-to-write 1` on the servers"
        return Check("durability", "warn", "fsync: a failover may lose acknowledged events", remedy)
    return Check("durability", "ok", "fsync before each acknowledgement")


def _confirms(redis: "Redis", made: Plan) -> bool:
    """Whether a write is made as durable as planned. Only trying tells: a replica may have no append-only file."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.set(PREFIX + "probe", 1, ex=PROBE_TTL_SECONDS)
        for wait in made.waits:
            pipeline.execute_command(*wait)  # type: ignore[no-untyped-call]
        _, *replies = pipeline.execute()
    return made.confirmed(replies)


def _eviction(server: Server) -> Check:
    if server.may_evict:
        remedy = "set `maxmemory-policy noeviction`"
        return Check("eviction", "fail", f"`maxmemory-policy {server.maxmemory_policy}` may throw events away", remedy)
    if server.maxmemory_policy is None:
        return Check("eviction", "warn", "the server does not tell its maxmemory-policy", "make sure it is noeviction")
    return Check("eviction", "ok", "noeviction")


def _memory(server: Server) -> Check:
    used, limit = server.memory_used, server.memory_limit
    finding = f"{used / 1024**2:.0f} MiB used" + (f" of {limit / 1024**2:.0f}" if limit else "")
    if limit and used > FULL_FROM * limit:
        return Check("memory", "warn", finding, "raise maxmemory, or shorten JOBHOOK_RETENTION")
    return Check("memory", "ok", finding)


def _clock(ahead: float) -> Check:
    if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
        return Check("clock", "warn", f"Redis is {ahead:+.0f} s against this machine", "run NTP on both")
    return Check("clock", "ok", "agrees with Redis")


def _workers(swept_seconds_ago: float | None) -> Check:
    if swept_seconds_ago is None or swept_seconds_ago > WORKERS_SEEN_WITHIN_SECONDS:
        seen = "never" if swept_seconds_ago is None else f"{swept_seconds_ago:.0f} s ago"
        return Check(
            "workers", "warn", f"last seen {seen}: events are recorded but not processed", "run `jobhook work`"
        )
    return Check("workers", "ok", "seen within the last seconds")
