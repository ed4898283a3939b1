"""The same world on Redis Sentinel: a primary and two replicas, of which one may take its place."""

from pathlib import Path
from time import monotonic

from redis import Redis

from app.cli.embedded import EmbeddedServer
from tests.chaos.ledger import Interruption
from tests.chaos.world import World
from tests.support import wait_until
from tests.support.sentinel import SentinelTopology, replicates

REPLICAS = 2
DOWN_AFTER_MS = 2000
"""With 1 s, a sentinel may take a new primary for down that it has just begun to ask, and replace it again."""
CUT_OFF_TAKES_NO_WRITES = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10")
"""As deploy/README.md has it."""


class FailoverWorld(World):
    """Deliveries are acknowledged once they are on a replica's disk too. There are no proxies in between."""

    def begin_redis(self, folder: Path) -> None:
        self.topology = SentinelTopology(
            folder / "redis", *CUT_OFF_TAKES_NO_WRITES, replicas=REPLICAS, down_after_ms=DOWN_AFTER_MS
        )
        self.redis_url = self.topology.url
        self.environment = {"JOBHOOK_DURABILITY": "replica"}
        self._killed: EmbeddedServer | None = None
        self._promoted: Redis | None = None

    @property
    def redis(self) -> "Redis":
        """Of the new primary at once: what the old one says meanwhile is what will be forgotten."""
        return self._promoted or super().redis

    def start_redis(self) -> None:
        self.topology.__enter__()

    def stop_redis(self) -> None:
        if self._promoted:
            self._promoted.close()
        self.topology.__exit__()

    def url_for(self, name: str) -> str:
        return self.redis_url

    def kill_primary(self) -> EmbeddedServer:
        """Ends the primary as a crash would; the server it was."""
        self._killed = self.topology.kill_primary()
        return self._killed

    def await_promotion(self, old: EmbeddedServer) -> float:
        """Waits until another server is the primary; when that was."""
        begun = monotonic()
        self._promoted = Redis(port=self.topology.wait_for_promotion(old).port)
        self.ledger.interruptions.append(Interruption("failover", begun, monotonic(), None))
        return monotonic()

    def be_complete(self) -> None:
        """Has every server that is not the primary follow it, so that the next failover finds two replicas."""
        if self._killed:
            self.topology.start_again(self._killed)
        self._killed = None
        primary = self.topology.primary
        others = [server for server in self.topology.servers if server is not primary]
        wait_until(lambda: all(map(replicates, others)), "the replicas")
