"""How a server makes a write durable, and whether it can do what the settings promise (P1).

`WAITAOF` (Redis 7.2, Valkey) waits until the append-only file is on disk, whatever `appendfsync` says.
Older servers can promise that only with `appendfsync always`, where each reply comes after the fsync.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

WAITAOF_SINCE = (7, 2)
OLDEST_SERVER = (7, 0)
"""The accept script uses `SET NX GET`."""

EVERYSEC_BATCHES = 4
"""Batches on their way at once where each waits for the next periodic fsync; else one is best."""


@dataclass(frozen=True, slots=True)
class Server:
    """What has to be known of a server. Managed services may hide `appendfsync`."""

    version: tuple[int, ...]
    name: str
    aof: bool
    appendfsync: str | None
    maxmemory_policy: str | None

    @classmethod
    def from_info(cls, info: Mapping[str, Any], config: Mapping[str, str]) -> "Server":
        """From the replies to INFO and to CONFIG GET (empty if that is not allowed)."""
        valkey = info.get("valkey_version")
        return cls(
            version=tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]),
            name=f"Valkey {valkey}" if valkey else f"Redis {info['redis_version']}",
            aof=bool(int(info.get("aof_enabled", 0))),
            appendfsync=config.get("appendfsync"),
            maxmemory_policy=info.get("maxmemory_policy") or config.get("maxmemory-policy"),
        )

    @property
    def may_evict(self) -> bool:
        """Whether the server may throw away events when its memory is full."""
        return self.maxmemory_policy is not None and self.maxmemory_policy != "noeviction"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch is made durable."""

    waitaof: bool
    parallel: int
    """Batches on their way at once."""
    shortfall: str | None = None
    """Why the server cannot do what is configured, and the remedy."""


def plan(wanted: Literal["fsync", "memory"], server: Server) -> Plan:
    """How to do what is wanted on this server."""
    if wanted == "memory":
        return Plan(waitaof=False, parallel=1)
    if not server.aof:
        return Plan(False, 1, "the append-only file is off: set `appendonly yes`, or JOBHOOK_DURABILITY=memory")
    always = server.appendfsync == "always"
    if server.version >= WAITAOF_SINCE:
        return Plan(waitaof=True, parallel=1 if always else EVERYSEC_BATCHES)
    if always:
        return Plan(waitaof=False, parallel=1)
    return Plan(
        False, 1, f"{server.name} has no WAITAOF: set `appendfsync always`, use Redis 7.2, or JOBHOOK_DURABILITY=memory"
    )
