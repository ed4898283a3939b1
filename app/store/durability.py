"""How a server makes a write durable, and whether it can do what the settings promise (P1).

`WAITAOF` (Redis 7.2, Valkey) waits until the append-only file is on disk, whatever `appendfsync` says,
here and on replicas. Older servers can promise that only for themselves, and only with `appendfsync
always`, where each reply comes after the fsync.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from redis.exceptions import NoPermissionError

WAITAOF_SINCE = (7, 2)
OLDEST_SERVER = (7, 0)
"""The accept script uses `SET NX GET`."""

BATCHES = 2
"""Batches on their way at once: while the server works on one, the next is on its way."""
EVERYSEC_BATCHES = 4
"""The same where each waits for the next periodic fsync."""
REPLICA_BATCHES = 1
"""The same where each waits for a replica: more were slower."""
LOCAL, REPLICAS = 1, 1
"""Append-only files, the server's own and replicas', that have to be on disk."""
POLL_MS = 100
"""How long a replica is waited for before it is asked again: the server's own timer is no finer."""

IS_CLUSTER = "it is a cluster, which is not supported yet"
NO_CLUSTER = "use a Redis with cluster mode disabled"
_MEMORY = "JOBHOOK_DURABILITY=memory"
_SERVICE = "JOBHOOK_DURABILITY=service if a service that answers only when a write is durable runs it"

Durability = Literal["memory", "fsync", "replica", "service"]
Wait = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """What has to be known of a server. Managed services may hide `appendfsync`."""

    version: tuple[int, ...]
    name: str
    aof: bool | None
    """None: it does not say."""
    appendfsync: str | None
    maxmemory_policy: str | None
    cluster: bool = False
    """Whether it is a node of a cluster, be it the only one."""
    primary: bool = True
    replicas: int = 0
    """Those connected and in step, though perhaps behind."""
    memory_used: int = 0
    memory_limit: int = 0
    """In bytes. A limit of 0 is none."""

    @classmethod
    def from_info(cls, info: Mapping[str, Any], config: Mapping[str, str]) -> "Server":
        """From the replies to INFO and to CONFIG GET (empty if that is not allowed)."""
        valkey = info.get("valkey_version")
        return cls(
            version=tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]),
            name=f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
            aof=bool(int(info["aof_enabled"])) if "aof_enabled" in info else None,
            appendfsync=config.get("appendfsync"),
            maxmemory_policy=info.get("maxmemory_policy") or config.get("maxmemory-policy"),
            cluster=bool(int(info.get("cluster_enabled", 0))) or info.get("redis_mode") == "cluster",
            primary=info.get("role", "master") == "master",
            replicas=sum(_online(info.get(f"slave{n}")) for n in range(int(info.get("connected_slaves", 0)))),
            memory_used=int(info.get("used_memory", 0)),
            memory_limit=int(info.get("maxmemory", 0)),
        )

    @property
    def answers_when_durable(self) -> bool | None:
        """Whether each reply comes after the fsync; None if it does not let us look."""
        if self.appendfsync is None:
            return None
        return bool(self.aof) and self.appendfsync == "always"

    @property
    def may_evict(self) -> bool:
        """Whether the server may throw away events when its memory is full."""
        return self.maxmemory_policy is not None and self.maxmemory_policy != "noeviction"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch is made durable."""

    waits: tuple[Wait, ...] = ()
    """Commands that follow a batch in the same round trip; their replies say how durable it is."""
    parallel: int = BATCHES
    """Batches on their way at once."""
    replicas: int = 0
    """How many must have it."""
    in_memory: bool = False
    """Whether a replica's memory is all that can be asked for, not its disk."""
    shortfall: str | None = None
    """Why the server cannot do what is configured, and the remedy."""
    by_reply: bool = field(default=False, compare=False)
    """Whether the reply to the batch itself comes after the fsync, as with `appendfsync always`. The waits then
    only make sure of it, and a user who may not wait loses nothing."""

    def confirmed(self, replies: Sequence[Any]) -> bool:
        """Whether the replies to the waits, or the errors, say that it is as durable as planned.

        One that does is enough.

        Raises:
            ResponseError: one is an error, and not that of a user who need not wait.
        """
        return not self.waits or any(map(self._suffices, replies))

    def _suffices(self, reply: Any) -> bool:
        if isinstance(reply, Exception):
            if self.by_reply and isinstance(reply, NoPermissionError):
                return True
            raise reply
        if isinstance(reply, int):  # to WAIT: how many replicas have it in memory
            return self.in_memory and reply >= self.replicas
        local, replicas = reply
        return bool(local >= LOCAL and replicas >= self.replicas)


def plan(wanted: Durability, server: Server, budget: float) -> Plan:
    """How to do what is wanted on this server, in `budget` seconds."""
    if server.cluster:
        return Plan(shortfall=f"{IS_CLUSTER}: {NO_CLUSTER}")
    if not server.primary:
        return Plan(shortfall="it is a replica, and takes no writes: name the primary in REDIS_URL, or the sentinels")
    if server.may_evict:
        remedy = "set `maxmemory-policy noeviction`"
        return Plan(shortfall=f"`maxmemory-policy {server.maxmemory_policy}` may throw events away: {remedy}")
    if wanted == "memory":
        return Plan()
    if wanted == "service":
        return _by_service(server)
    if server.aof is None:
        return Plan(shortfall=f"it does not tell whether it has an append-only file: {_SERVICE}, or {_MEMORY}")
    if not server.aof:
        hidden = f"; {_SERVICE}" if server.appendfsync is None else ""
        return Plan(shortfall=f"the append-only file is off: set `appendonly yes`, or {_MEMORY}{hidden}")
    always = server.appendfsync == "always"
    if not always and server.version < WAITAOF_SINCE:
        remedy = "set `appendfsync always`, use Redis 7.2, or JOBHOOK_DURABILITY=memory"
        return Plan(shortfall=f"{server.name} has no WAITAOF: {remedy}")
    if wanted == "replica":
        return _with_replica(server, int(budget * 1000), REPLICA_BATCHES if always else EVERYSEC_BATCHES)
    if server.version >= WAITAOF_SINCE:
        # For ever, by the server's clock: the batch's own deadline ends it with the connection.
        return Plan((("WAITAOF", LOCAL, 0, 0),), BATCHES if always else EVERYSEC_BATCHES, by_reply=always)
    return Plan()


def _by_service(server: Server) -> Plan:
    """The word of whoever runs the server is taken only where the server does not let us look.

    Otherwise `service` on a Redis of one's own would be `memory` under another name.
    """
    if server.answers_when_durable is False:
        return Plan(shortfall="it lets us look, and answers before a write is on disk: set JOBHOOK_DURABILITY=fsync")
    return Plan()


def _with_replica(server: Server, budget_ms: int, parallel: int) -> Plan:
    """A replica tells by itself only once a second what it has on disk, and at once when a wait begins.

    Asked together with the batch it would tell of the time before it. So its memory is waited for first,
    and it is asked for its disk then, again and again.
    """
    if server.replicas < REPLICAS:
        return Plan(
            shortfall="no replica is connected: start one that has `appendonly yes` and whose `replica-priority` is "
            "not 0, better two, so that one may fail; or JOBHOOK_DURABILITY=fsync"
        )
    in_memory: Wait = ("WAIT", REPLICAS, budget_ms)
    if server.version < WAITAOF_SINCE:
        return Plan((in_memory,), parallel, REPLICAS, in_memory=True)
    on_disk: Wait = ("WAITAOF", LOCAL, REPLICAS, POLL_MS)
    return Plan((in_memory, *[on_disk] * max(1, budget_ms // POLL_MS)), parallel, REPLICAS)


def _online(replica: Any) -> bool:
    """From its line in INFO: not if it is still being sent its first copy of everything."""
    return isinstance(replica, Mapping) and replica.get("state") == "online"
