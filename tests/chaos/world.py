"""What is struck: two receivers and two supervisors, each behind a proxy, on one Redis."""

import asyncio
import os
import random
import signal
import subprocess
import threading
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar

import uvloop
from redis import Redis

from app.cli.embedded import DURABLE, EmbeddedServer, free_port
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox
from app.receiver.endpoint import PATH
from tests.chaos.ledger import EFFECTS_FILE, Ledger
from tests.chaos.processes import Keeper, Service, kill, marked, owner
from tests.chaos.proxy import Link, Proxy
from tests.chaos.sender import Sender
from tests.support import wait_until
from tests.support.processes import family
from tests.support.stack import KEY, ROOT, Stack

T = TypeVar("T")

RECEIVERS, SUPERVISORS, WORKERS_EACH = 2, 2, 2
HANDLER_TIMEOUT_SECONDS = 5
"""Longer than the short outages, so that a step lives through them."""
LEASE_SECONDS = HANDLER_TIMEOUT_SECONDS + LEASE_MARGIN_SECONDS
FINISH_SECONDS = 8
"""How long the last events of the stream may take until they are answered."""
TOOL_SECONDS = 30
"""How long a command line tool may run."""
SABOTAGE = ROOT / "tests" / "support" / "sabotage"
IGNORE_FILE_SIZE_SIGNAL = ("sh", "-c", 'trap "" XFSZ; exec "$@"', "sh")
"""So that a write over the limit fails as on a full disk, instead of ending the process."""


class World:
    """Everything that runs. What is started here is stopped at the end."""

    def __init__(self, folder: Path, seed: int, *, quick: bool) -> None:
        self.quick = quick
        self.random = random.Random(seed)  # noqa: S311 - reproducible
        self.ledger = Ledger(folder / "effects.tsv")
        self.order = folder / "order"
        """The file that says what fails in all processes (tests/support/sabotage)."""
        self.begin_redis(folder)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._keeper = Keeper()
        self._pids: dict[bytes, int] = {}
        self._tools: list[subprocess.Popen[bytes]] = []
        self.ports = [free_port() for _ in range(RECEIVERS)]
        self.sender = Sender([f"http://127.0.0.1:{port}{PATH}" for port in self.ports], KEY.encode(), self.ledger, seed)
        self.stack = Stack(
            folder,
            self.redis_url,
            JOBHOOK_HANDLERS="tests.chaos.handlers",
            JOBHOOK_HANDLER_TIMEOUT=f"{HANDLER_TIMEOUT_SECONDS}s",
            JOBHOOK_WORKERS=str(WORKERS_EACH),
            PYTHONPATH=str(SABOTAGE),
            SABOTAGE=str(self.order),
            **{EFFECTS_FILE: str(self.ledger.file)} | self.environment,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.start_redis()
            self.receivers = [
                self._service(f"receiver-{n}", "tests.chaos.receiver", "--port", str(port))
                for n, port in enumerate(self.ports)
            ]
            self.supervisors = [self._service(f"workers-{n}", "workers") for n in range(SUPERVISORS)]
            self._keeper.services = [*self.receivers, *self.supervisors]
            self._keeper.start()
            wait_until(lambda: self.stack.redis.scard("rq:workers") >= SUPERVISORS * WORKERS_EACH, "the workers")
            wait_until(self.all_answer, "the receivers")
            self._streaming = asyncio.run_coroutine_threadsafe(self.sender.stream(), self._loop)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _service(self, name: str, *command: str) -> Service:
        return Service(partial(self.stack.start, name, *command, REDIS_URL=self.url_for(name)))

    def begin_redis(self, folder: Path) -> None:
        """Prepares what `start_redis` starts."""
        self.server = EmbeddedServer(folder / "valkey", *DURABLE, wrapper=IGNORE_FILE_SIZE_SIGNAL)
        self.proxies = {"receivers": Proxy(self.server.port), "workers": Proxy(self.server.port)}
        self.redis_url = self.server.url
        self.environment: dict[str, str] = {}

    @property
    def redis(self) -> "Redis":
        """A client of the server whose word counts."""
        return self.stack.redis

    @property
    def inbox(self) -> Inbox:
        """The inbox there."""
        return Inbox(self.redis, self.stack.settings)

    def start_redis(self) -> None:
        """Starts the server, and a proxy for each kind of process."""
        self.server.start()
        for proxy in self.proxies.values():
            self.run(proxy.start())

    def stop_redis(self) -> None:
        """Ends what `start_redis` has started."""
        for proxy in self.proxies.values():
            self.run(proxy.close())
        self.server.kill()

    def url_for(self, name: str) -> str:
        """Where a process finds Redis."""
        proxy = self.proxies["receivers" if name.startswith("receiver") else "workers"]
        return f"redis://127.0.0.1:{proxy.port}/0"

    def __exit__(self, *_: object) -> None:
        if self._keeper.services:
            self._keeper.stop()
        try:
            self.stack.__exit__()
        finally:
            for stray in marked(EFFECTS_FILE, str(self.ledger.file)):
                os.kill(stray, signal.SIGKILL)
            self.stop_redis()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the loop of sender and proxies."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.futures.Future[T] | Any":
        """Starts a coroutine there, and goes on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def finish(self) -> None:
        """Ends the stream and waits until each of its events is answered or given up."""
        self.sender.stop()
        try:
            self._streaming.result(FINISH_SECONDS)
        except TimeoutError:
            self._streaming.cancel()
            self.ledger.complaints.append("deliveries were still not answered at the end")

    def all_answer(self) -> bool:
        """Whether every receiver accepts a connection."""
        return all(self.run(_listens(port)) for port in self.ports)

    def pause(self, seconds: float) -> None:
        """Lets a fault last."""
        until = monotonic() + seconds
        wait_until(lambda: monotonic() >= until, patience=seconds + 5)

    def stream_on(self, events: int) -> None:
        """Lets so many more events of the stream begin."""
        until = self.sender.begun + events
        wait_until(lambda: self.sender.begun >= until, "the stream")

    def workers(self) -> list[int]:
        """The process ids of the workers that there are."""
        return [pid for supervisor in self.supervisors for pid in list(family(supervisor.pid))[1:]]

    def busy_worker(self) -> int:
        """The process id of a worker that has an event in hand, at least a moment ago."""
        return wait_until(self._busy_worker, "a busy worker") or 0

    def _busy_worker(self) -> int | None:
        alive = set(self.workers())
        return next((pid for pid in self._at_work() if pid in alive), None)

    def is_busy(self, worker: int) -> bool:
        """Whether a worker has an event in hand."""
        return worker in self._at_work()

    def _at_work(self) -> list[int]:
        redis: Any = self.stack.redis
        self.note_workers()
        names = [redis.hget(b"jobhook:event:" + id, "worker") for id in redis.zrange("jobhook:running", 0, -1)]
        return [self._pids[name] for name in names if name in self._pids]

    def note_workers(self) -> None:
        """Remembers which worker has which pid: RQ's own note of it expires when the clock jumps."""
        redis: Any = self.stack.redis
        for key in redis.smembers("rq:workers"):
            if pid := redis.hget(key, "pid"):
                self._pids[key.removeprefix(b"rq:worker:")] = int(pid)

    def strays(self) -> set[int]:
        """The process ids of workers that have outlived their supervisor."""
        services = [*self.receivers, *self.supervisors]
        known = {pid for service in services for pid in family(service.pid)}
        return marked(EFFECTS_FILE, str(self.ledger.file)) - known

    def kill_owner(self, link: Link, what: str) -> None:
        """Kills the process that has the client's end of a connection."""
        services = [service.process for service in (*self.receivers, *self.supervisors)]
        if pid := owner(link.port, [process.pid for process in (*services, *self._tools)]):
            kill(self.ledger, pid, what)
        link.reset()

    def start_replay(self) -> None:
        """An operator puts all dead events back to work."""
        wait_until(lambda: self.stack.redis.zcard("jobhook:dead"), "a dead event")
        self._tools = [self.stack.start("replay", "app", "replay", "--dead", REDIS_URL=self.url_for("replay"))]

    def replay_until_done(self) -> None:
        """The operator tries again until there is no error."""
        while self._tools[0].wait(TOOL_SECONDS) != 0:
            self.start_replay()

    def restart_receivers(self, environment: dict[str, str]) -> None:
        """Stops the receivers in good order and waits for the new ones, with more in their environment."""
        before = [receiver.process for receiver in self.receivers]
        for receiver in self.receivers:
            receiver.restart_with(environment)
        wait_until(lambda: not any(r.process in before for r in self.receivers), "new receivers")
        wait_until(self.all_answer, "the receivers")


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
