"""What is well and what is not, for `/readyz` and `jobhook doctor`, with the remedy for each (P9).

Ready means that a delivery sent now would be answered 200. So one is recorded, on trial; the rest of the checks
tell what is going to be wrong, or why.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from shlex import quote
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NotInTime
from redis.sentinel import MasterNotFoundError

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox import schema
from app.inbox.inbox import Inbox
from app.inbox.paused import EVERYTHING
from app.inbox.record import Stats
from app.ops import keys, problems, streams
from app.ops.keys import at
from app.ops.problems import Check, explain
from app.ops.trial import record_one
from app.store import connections
from app.store.connections import SENTINEL_SCHEMES
from app.store.durability import IS_CLUSTER, NO_CLUSTER, OLDEST_SERVER, Plan, Server, plan
from app.store.server import ask, server_from

ANSWER_SECONDS = 2.2
"""How long all checks together may take, whatever Redis does."""
COMMAND_SECONDS = 1.5
"""The same for one command: over the second in which `appendfsync everysec` comes round."""
REPLICA_SECONDS = 0.8
"""The same for a replica to confirm a write: its memory, then its disk."""
PROVEN_SECONDS = 0.5
"""How long a trial that went well stands for the next ones, so that frequent probes cost no more than a few writes."""
WORKERS_SEEN_WITHIN_SECONDS = 10.0
"""Supervisors sweep and beat every second; this leaves room for a restart."""
MOST_SILENT_SHOWN = 10
CLOCK_TOLERANCE_SECONDS = 5.0
BROKEN_SHOWN = 3
"""Ids of events that are named."""
CLUSTER_WORDS = "cluster mode"
"""In what a cluster says to a client that wants another database than 0."""
FULL_FROM = 0.9
"""The share of maxmemory from which new deliveries are in danger of being refused."""


Try = Callable[[Settings, "Redis", Plan, float, str], Check | None]


class Health:
    """The checks of one process: quick, bounded, and done once for all who ask at the same time."""

    def __init__(self, settings: Settings, seconds: float | None = None) -> None:
        """Checks that take no longer than `seconds`, or `ANSWER_SECONDS`."""
        self.settings = settings
        """Those in force: set anew when keys change."""
        self._seconds = seconds
        self._redis = connections.connect(settings.redis_url, timeout=COMMAND_SECONDS, retries=0)
        self._proven: tuple[Plan, float] | None = None
        self._lock = threading.Lock()
        self._running: Future[list[Check]] | None = None

    def check(self) -> list[Check]:
        """Everything that can be found out about this process, the Redis in use, and the workers on it."""
        with self._lock:
            if self._running is None:
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), name="health", daemon=True).start()
            running = self._running
        seconds = self._seconds or ANSWER_SECONDS
        try:
            findings = running.result(seconds)
        except TimeoutError:  # the thread goes on until its commands have timed out
            findings = [problems.TOO_SLOW.found(seconds=seconds)]
        return [*_logs(), *findings]

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def _run(self, running: "Future[list[Check]]") -> None:
        try:
            findings = check(self.settings, self._redis, self._is_recorded)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets to know it
            running.set_exception(error)
        else:
            running.set_result(findings)
        finally:
            with self._lock:
                self._running = None

    def _is_recorded(
        self, settings: Settings, redis: "Redis", made: Plan, seconds: float, slow_because: str
    ) -> Check | None:
        """A trial, unless one with the same plan has gone well a moment ago."""
        if self._proven and self._proven[0] == made and time.monotonic() < self._proven[1]:
            return None
        problem = record_one(settings, redis, made, seconds, slow_because)
        self._proven = None if problem else (made, time.monotonic() + PROVEN_SECONDS)
        return problem


def check(settings: Settings, redis: "Redis", try_one: Try = record_one) -> list[Check]:
    """The same, without the process; as long as it takes. `try_one` is what tries a delivery."""
    try:
        findings = list(_checks(settings, redis, try_one))
    except MasterNotFoundError as error:
        findings = [problems.NO_PRIMARY.found(error=type(error).__name__)]
    except (NotConnected, NotInTime, OSError) as error:
        known = getattr(error, "status_code", None)  # LOADING, say, or a wrong password
        findings = [explain(problems.REFUSED, error) if known else problems.NO_ANSWER.found(error=type(error).__name__)]
    except RedisError as error:
        findings = [explain(problems.REFUSED, error)]
    if any(finding.level == "fail" for finding in findings):
        redis.connection_pool.disconnect()  # after a failover it may be connected to a server that is no primary now
    return findings


def refuse_to_start(settings: Settings, redis: "Redis") -> None:
    """Stops a start on a server that would lose events, or whose records this code does not know.

    A server that is down may still come up.

    Raises:
        ConfigError: the server may evict, is too old or a cluster, or its records are of another schema version.
    """
    try:
        server = _see(redis).server
    except (RedisError, OSError) as error:
        if CLUSTER_WORDS in str(error):
            raise ConfigError(f"REDIS_URL: {IS_CLUSTER}: {NO_CLUSTER}") from None
        return
    for finding in (*_cluster(server), _version(server), _eviction(server)):
        if finding.level == "fail":
            raise ConfigError(f"REDIS_URL: {finding.finding}: {finding.remedy}")
    with suppress(RedisError):  # a server that takes no writes: the checks say so
        schema.claim(redis)


class _Seen:
    """What the server says of itself, in one round trip.

    Raises:
        RedisError: it cannot be asked.
    """

    def __init__(self, redis: "Redis") -> None:
        with redis.pipeline(transaction=False) as pipeline:
            ask(pipeline)
            pipeline.time()
            pipeline.get(schema.KEY)
            info, config, now, self.schema = pipeline.execute(raise_on_error=False)
        self.server = server_from(info, config)
        for reply in (now, self.schema):
            if isinstance(reply, Exception) and not self.server.cluster:  # whose other nodes have the keys
                raise reply
        self.info: dict[str, Any] = info
        self.ahead = now[0] + now[1] / 1e6 - time.time()

    @property
    def slow_because(self) -> str:
        """Why it may take no writes at the moment."""
        if self.info.get("master_failover_state", "no-failover") != "no-failover":
            return ": a failover is in progress"
        if self.info.get("paused_actions", "none") != "none":
            return f": clients are paused ({self.info.get('paused_reason')})"
        return ""


def _see(redis: "Redis") -> _Seen:
    try:
        return _Seen(redis)
    except MasterNotFoundError:
        raise
    except NotConnected:  # of a connection that a restarted server has left behind
        return _Seen(redis)


def _checks(settings: Settings, redis: "Redis", try_one: Try) -> Iterator[Check]:
    seen = _see(redis)
    yield Check("redis", "ok", "answers")
    yield _version(seen.server)
    if seen.server.cluster:
        yield from _cluster(seen.server)
        return
    yield from _schema(seen.schema)
    if not seen.server.may_evict:  # else nothing is durable, and the next check says why
        yield _durability(settings, seen, redis, try_one)
    yield _eviction(seen.server)
    yield _memory(seen.server)
    yield _clock(seen.ahead)
    try:
        inbox = Inbox(redis, settings)
        stats, broken = inbox.stats(), inbox.broken()
    except ResponseError as error:  # it keeps no delivery from being recorded
        yield explain(problems.UNSEEN, error)
    else:
        yield from _workers(stats)
        yield from _broken(broken)
    yield from keys.check(settings, redis)


def _version(server: Server) -> Check:
    if server.version < OLDEST_SERVER:
        return problems.OLD_SERVER.found(server=server.name)
    return Check("version", "ok", server.name)


def _cluster(server: Server) -> Iterator[Check]:
    if server.cluster:
        yield problems.CLUSTER.found()


def _schema(stored: bytes | None) -> Iterator[Check]:
    try:
        schema.verify(stored)
    except ConfigError as error:
        finding, _, remedy = str(error).removeprefix("REDIS_URL: ").rpartition(": ")
        yield problems.OTHER_SCHEMA.found(finding=finding, remedy=remedy)


def _durability(settings: Settings, seen: _Seen, redis: "Redis", try_one: Try) -> Check:
    wanted, server = settings.durability, seen.server
    made = plan(wanted, server, settings.ack_budget)
    if made.shortfall:
        return problems.NOT_DURABLE.found(wanted=wanted, remedy=made.shortfall)
    seconds = COMMAND_SECONDS if wanted != "replica" else min(settings.ack_budget, REPLICA_SECONDS)
    if problem := try_one(settings, redis, plan(wanted, server, seconds), seconds, seen.slow_because):
        return problem
    if wanted == "memory":
        return problems.IN_MEMORY_ONLY.found()
    if wanted == "service":
        return problems.BY_SERVICE.found(server=server.name)
    if made.in_memory:
        return problems.REPLICA_IN_MEMORY.found(server=server.name)
    if server.appendfsync != "always":
        return problems.SLOW_FSYNC.found(wanted=wanted, appendfsync=server.appendfsync or "unknown")
    if wanted == "replica":
        replicas = "1 replica" if server.replicas == 1 else f"{server.replicas} replicas"
        return Check("durability", "ok", f"on the disks of primary and replica before each answer ({replicas})")
    if settings.redis_url.startswith(SENTINEL_SCHEMES):
        return problems.FAILOVER_LOSES.found()
    return Check("durability", "ok", "fsync before each acknowledgement")


def _eviction(server: Server) -> Check:
    if server.may_evict:
        return problems.EVICTS.found(policy=server.maxmemory_policy)
    if server.maxmemory_policy is None:
        return problems.POLICY_HIDDEN.found()
    return Check("eviction", "ok", "noeviction")


def _memory(server: Server) -> Check:
    used, limit = server.memory_used, server.memory_limit
    finding = f"{used / 1024**2:.0f} MiB used" + (f" of {limit / 1024**2:.0f}" if limit else "")
    if limit and used > FULL_FROM * limit:
        return problems.NEARLY_FULL.found(used=finding)
    return Check("memory", "ok", finding)


def _clock(ahead: float) -> Check:
    if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
        return problems.CLOCKS_DIFFER.found(ahead=ahead)
    return Check("clock", "ok", "agrees with Redis")


def _workers(stats: Stats) -> Iterator[Check]:
    ago = stats.swept_seconds_ago
    if ago is None or ago > WORKERS_SEEN_WITHIN_SECONDS:
        yield problems.NO_WORKERS.found(seen="never" if ago is None else f"{ago:.0f} s ago")
    else:
        yield Check("workers", "ok", "seen within the last seconds")
    silent = {name: ago for name, ago in stats.supervisors.items() if ago > WORKERS_SEEN_WITHIN_SECONDS}
    for name in sorted(silent)[:MOST_SILENT_SHOWN]:
        yield problems.SILENT.found(name=name, seconds=silent[name])
    if stats.suspended:
        yield problems.SUSPENDED.found()
    for one in stats.paused:
        until = "until it is ended" if one.until is None else f"until {at(one.until)}"
        what = "everything" if one.what == EVERYTHING else f"`{one.what}`"
        yield problems.PAUSED.found(what=what, since=at(one.since), by=one.by, until=until, name=quote(one.what))


def _logs() -> Iterator[Check]:
    if lines := streams.untold():
        yield problems.UNWRITTEN_LOGS.found(lines=lines)


def _broken(ids: list[str]) -> Iterator[Check]:
    if ids:
        shown = ", ".join(ids[:BROKEN_SHOWN]) + (", …" if len(ids) > BROKEN_SHOWN else "")
        yield problems.BROKEN_RECORDS.found(number=len(ids), ids=shown)
