"""The supervisor: keeps N workers running, and sweeps the inbox every second.

A worker that dies is replaced, and its event released at once: the supervisor has seen it die, so
nobody has to wait for the lease. A worker that is stuck past its deadline is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from time import monotonic
from types import FrameType
from uuid import uuid4

import structlog
from redis.exceptions import RedisError

from app.config.settings import Settings
from app.config.sources import load_settings, notes
from app.errors import describe
from app.inbox import jobs
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox, connect
from app.inbox.presence import Presence
from app.ops import logs
from app.ops.health import refuse_to_start
from workers.known import announce
from workers.loading import load
from workers.worker import NOT_READY, JobhookWorker, KillTime

TICK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between the starts of workers that die before they are ready; it begins with a tick and doubles."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.stdlib.get_logger(__name__)
_fork = multiprocessing.get_context("fork")  # 10 ms a worker, against 500 ms with spawn


@dataclass
class Child:
    """A worker process."""

    name: str
    process: BaseProcess
    deadline: KillTime
    stops_sent: int = 0


class Supervisor:
    """Runs until it gets a SIGTERM or SIGINT; then it lets the workers finish what they have in hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox = Inbox(connect(settings), settings)
        self._presence = Presence(self._inbox)
        self._children: list[Child] = []
        self._to_release: dict[str, str] = {}
        self._stops = 0
        self._stopping_since: float | None = None
        self._not_before = 0.0
        self._pause = 0.0

    def run(self) -> None:
        """Supervises until stopped."""
        wake, waker = socket.socketpair()
        waker.setblocking(False)
        wake.settimeout(TICK_SECONDS)
        signal.set_wakeup_fd(waker.fileno())  # any signal, a child's death too, ends the wait below
        for number in _STOP_SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        log.info("supervisor started", workers=self._settings.workers, pid=os.getpid())
        while self._tick():
            with contextlib.suppress(TimeoutError):
                wake.recv(64)
        self._presence.leave()
        log.info("supervisor stopped")

    def _tick(self) -> bool:
        self._reap()
        self._pass_on_stops()
        self._kill_overdue()
        if self._stops and self._stopping_since is None:
            log.info("supervisor stopping: workers finish what they have in hand")
            self._stopping_since = monotonic()
        if self._stopping_since is None:
            self._spawn()
        elif not self._children and not self._to_release:
            return False
        try:
            self._release()
            if (swept := self._inbox.sweep()) and (swept.expired or swept.lost):
                log.warning("sweep healed", expired=swept.expired, lost=swept.lost)
            self._presence.beat()
        except RedisError as error:
            log.warning("redis does not answer", **describe(error))
            self._inbox.redis.connection_pool.disconnect()  # a demoted server keeps its clients
            if self._stopping_since is not None and not self._children:
                return False  # what could not be released waits for its lease
        return True

    def _spawn(self) -> None:
        if monotonic() < self._not_before:
            return
        while len(self._children) < self._settings.workers and not self._stops:
            name = f"{socket.gethostname()}-{uuid4().hex[:12]}"
            deadline: KillTime = RawValue("d", NOT_READY)
            process = _fork.Process(
                target=_work, args=(self._settings, name, deadline, os.getpid()), name=f"jobhook worker {name}"
            )
            # A signal that comes before the child is ready must neither get lost nor run our handler in it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
            process.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            self._children.append(Child(name, process, deadline))

    def _reap(self) -> None:
        for child in [child for child in self._children if not child.process.is_alive()]:
            code = child.process.exitcode
            self._children.remove(child)
            child.process.close()
            self._to_release[child.name] = f"The worker died ({_reason(code)})."
            if self._stopping_since is not None:
                continue
            log.warning("worker died", worker=child.name, reason=_reason(code))
            stillborn = child.deadline.value == NOT_READY
            self._pause = min(max(2 * self._pause, TICK_SECONDS), LONGEST_PAUSE_SECONDS) if stillborn else 0.0
            self._not_before = monotonic() + self._pause

    def _kill_overdue(self) -> None:
        now = monotonic()
        grace = self._settings.handler_timeout + LEASE_MARGIN_SECONDS
        stopping_too_long = self._stopping_since is not None and now > self._stopping_since + grace
        for child in self._children:
            if stopping_too_long or 0 < child.deadline.value < now:
                log.error("worker killed: it did not end its handler", worker=child.name)
                child.process.kill()

    def _pass_on_stops(self) -> None:
        """One SIGTERM for each that came: on the second, a worker ends at once."""
        for child in self._children:
            if child.stops_sent < self._stops:
                child.stops_sent += 1
                child.process.terminate()

    def _release(self) -> None:
        for name, reason in list(self._to_release.items()):
            self._inbox.release(name, reason)
            del self._to_release[name]

    def _stop(self, number: int, _: FrameType | None) -> None:
        # No more than this: it may have come in the middle of anything.
        self._stops += 1


def _reason(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


def _work(settings: Settings, name: str, deadline: KillTime, supervisor: int) -> None:
    os.setpgrp()  # a Ctrl-C reaches the supervisor only, which passes it on as one SIGTERM
    signal.set_wakeup_fd(-1)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    try:
        worker = JobhookWorker(
            [jobs.QUEUE],
            name=name,
            connection=connect(settings, retries=0),
            settings=settings,
            deadline=deadline,
            supervisor=supervisor,
        )
        worker.work(logging_level="WARNING")
    except RedisError:  # while it registers or takes leave; the supervisor says so, and starts another
        sys.exit(1)


def main() -> None:
    """Runs a supervisor with the settings of the environment.

    Raises:
        ConfigError: the settings, the handlers or the Redis they name cannot be used.
    """
    settings = load_settings()
    logs.configure(settings)
    logs.warn(notes())
    registry = load(settings)  # a handler that cannot be imported stops the start, not each worker
    redis = connect(settings)
    refuse_to_start(settings, redis)
    announce(redis, registry)
    Supervisor(settings).run()
