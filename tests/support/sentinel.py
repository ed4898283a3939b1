"""Redis Sentinel as real processes on loopback: a primary, its replicas, and three sentinels."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

from app.cli import embedded
from app.cli.embedded import DURABLE, HOST, EmbeddedServer, free_port
from tests.support import wait_until
from tests.support.processes import frozen

SERVICE = "jobhook-tests"
SENTINELS, QUORUM = 3, 2
DOWN_AFTER_MS = 1000
"""A primary that does not answer for so long is replaced; well over what a busy machine stalls for."""
FAILOVER_TIMEOUT_MS = 3000
ANSWER_SECONDS = 5.0
FAST_SYNC = ("--repl-diskless-sync-delay", "0")
"""A replica that joins is sent everything at once, not after 5 s."""


class SentinelTopology:
    """A primary that may die; the sentinels then promote one of its replicas. Everything ends with the context."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        replicas: int = 1,
        sentinel_password: str = "",
        down_after_ms: int = DOWN_AFTER_MS,
    ) -> None:
        self._folder = folder
        self._down_after_ms = down_after_ms
        self._password = sentinel_password
        self.first = EmbeddedServer(folder / "server-0", *DURABLE, *FAST_SYNC, *options)
        """The server that is the primary at first."""
        follow = ("--replicaof", f"{HOST} {self.first.port}")
        self.replicas = [
            EmbeddedServer(folder / f"server-{n}", *DURABLE, *FAST_SYNC, *options, *follow)
            for n in range(1, replicas + 1)
        ]
        self.sentinels: list[subprocess.Popen[bytes]] = []
        self.sentinel_ports = [free_port() for _ in range(SENTINELS)]

    @property
    def url(self) -> str:
        """What REDIS_URL has to be."""
        nodes = ",".join(f"{HOST}:{port}" for port in self.sentinel_ports)
        query = f"?sentinel_password={self._password}" if self._password else ""
        return f"redis+sentinel://{nodes}/{SERVICE}{query}"

    @property
    def servers(self) -> list[EmbeddedServer]:
        """Those that may become the primary, whether they run or not."""
        return [self.first, *self.replicas]

    @property
    def primary(self) -> EmbeddedServer:
        """The server that the majority of the sentinels takes for the primary."""
        ports = [port for port in map(self._named_by, self.sentinel_ports) if port]
        assert ports, "no sentinel answers"
        named = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == named)

    def kill_primary(self) -> EmbeddedServer:
        """Ends the primary as a crash would; the server it was."""
        victim = self.primary
        victim.kill()
        return victim

    def demote_primary(self) -> EmbeddedServer:
        """Has the sentinels promote a replica while the primary is well; the server that was it."""
        demoted = self.primary
        wait_until(
            lambda: ask(self.sentinel_ports[0], "SENTINEL FAILOVER", SERVICE, password=self._password),
            "a failover to begin",
        )
        return demoted

    def wait_for_promotion(self, old: EmbeddedServer) -> EmbeddedServer:
        """The new primary, once every sentinel names it and it takes writes."""
        wait_until(lambda: self._agreed() not in {None, old.port}, "the sentinels to name a new primary")
        promoted = self.primary
        wait_until(lambda: role(promoted) == "master", "the new primary to take its part")
        return promoted

    def start_again(self, old: EmbeddedServer) -> None:
        """Starts a server that was killed, and waits until the sentinels have made it a replica: some 10 s."""
        old.start()
        wait_until(lambda: replicates(old), "the old primary to be a replica")

    @contextmanager
    def without_sentinels(self, number: int = SENTINELS) -> Iterator[None]:
        """Freezes sentinels, those named first in the URL first: they take connections and do not answer."""
        with ExitStack() as stack:
            for sentinel in self.sentinels[:number]:
                stack.enter_context(frozen(sentinel.pid))
            yield

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            for replica in self.replicas:
                wait_until(lambda replica=replica: replicates(replica), "the first copy")  # type: ignore[misc]
            wait_until(lambda: in_step(self.first, len(self.replicas)), "the replicas to be in step")
            for n, port in enumerate(self.sentinel_ports):
                self.sentinels.append(self._start_sentinel(n, port))
            for port in self.sentinel_ports:
                wait_until(lambda port=port: self._knows_all(port), "the sentinels to know all")  # type: ignore[misc]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
            sentinel.wait()
        for server in self.servers:
            server.kill()

    def _start_sentinel(self, n: int, port: int) -> "subprocess.Popen[bytes]":
        folder = self._folder / f"sentinel-{n}"
        folder.mkdir(parents=True)
        lines = [
            f"port {port}",
            f"bind {HOST}",
            f"dir {folder}",
            *([f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"] if self._password else []),
            f"sentinel monitor {SERVICE} {HOST} {self.first.port} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}",
            f"sentinel parallel-syncs {SERVICE} 1",
        ]
        configuration = folder / "sentinel.conf"  # the sentinel keeps what it learns in it
        configuration.write_text("\n".join(lines) + "\n")
        return start_sentinel(configuration)

    def _named_by(self, port: int) -> int | None:
        # Not by GET-MASTER-ADDR-BY-NAME: redis-py goes by this, which changes at the end of a failover.
        state = ask(port, "SENTINEL MASTER", SERVICE, password=self._password)
        return int(state["port"]) if state else None

    def _agreed(self) -> int | None:
        ports = {self._named_by(port) for port in self.sentinel_ports}
        return ports.pop() if len(ports) == 1 else None

    def _knows_all(self, port: int) -> bool:
        known = ask(port, "SENTINEL MASTER", SERVICE, password=self._password) or {}
        return (known.get("num-slaves"), known.get("num-other-sentinels")) == (len(self.replicas), SENTINELS - 1)


def start_sentinel(configuration: Path) -> "subprocess.Popen[bytes]":
    """Starts a sentinel, with its log beside its configuration."""
    with configuration.with_suffix(".log").open("ab") as log:
        command = [str(embedded._binary()), str(configuration), "--sentinel"]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def ask(port: int, *command: str, password: str = "") -> Any:
    """A sentinel's answer; None if it has none, or does not answer."""
    try:
        with Redis(
            port=port, password=password or None, socket_timeout=ANSWER_SECONDS, decode_responses=True
        ) as client:
            return client.execute_command(*command)
    except RedisError:
        return None


def role(server: EmbeddedServer) -> str | None:
    """`master` or `slave`, as the server itself says; None if it does not answer."""
    return str(found["role"]) if (found := _replication(server)) else None


def replicates(server: EmbeddedServer) -> bool:
    """Whether the server follows a primary."""
    found = _replication(server)
    return found.get("role") == "slave" and found.get("master_link_status") == "up"


def in_step(server: EmbeddedServer, replicas: int = 1) -> bool:
    """Whether so many replicas follow the server, and have got their first copy."""
    found = _replication(server)
    return sum(1 for name, line in found.items() if name.startswith("slave") and "online" in str(line)) >= replicas


def follow(server: EmbeddedServer, primary: EmbeddedServer) -> None:
    """Makes a server a replica; the clients connected to it stay so."""
    with Redis(port=server.port) as client:
        client.replicaof(HOST, str(primary.port))


def cut_off(server: EmbeddedServer) -> None:
    """Ends the replication, as a partition would in which the replica's side has made it a primary."""
    with Redis(port=server.port) as client:
        client.replicaof("NO", "ONE")


def _replication(server: EmbeddedServer) -> dict[str, Any]:
    try:
        with Redis(port=server.port, socket_timeout=ANSWER_SECONDS) as client:
            found: dict[str, Any] = client.info("replication")
            return found
    except RedisError:
        return {}
