"""How RQ knows a worker of ours: its entry in RQ's registry, and the commands that RQ's users send it.

All of it is best effort. What fails here, such as writes to a Redis that is full, keeps nobody from working.
"""

import os
import socket
from time import monotonic
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from rq import SimpleWorker, worker_registration
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from app.config.settings import Settings
from app.errors import describe
from app.inbox.jobs import QUEUE
from app.store import connections

BEAT_SECONDS = 1.0
"""A worker beats so often at most."""
TTL_MARGIN_SECONDS = 60
"""How much longer an entry lives than a handler may run: a worker does not beat while one does."""
ANSWER_SECONDS = 1.0
"""How long RQ's registry may keep a worker from working, or from ending."""

log = structlog.stdlib.get_logger(__name__)


def client(settings: Settings) -> "Redis":
    """A client of its own for what is best effort: what goes wrong with it cannot disturb the work."""
    return connections.connect(settings.redis_url, timeout=ANSWER_SECONDS, retries=0)


class _Entry(SimpleWorker):
    """An RQ worker that is never run: it knows its keys and fields, and how commands are handled."""

    @property
    def connection_timeout(self) -> int:
        """0: RQ would otherwise have its connections wait longer."""
        return 0


def entry(name: str, connection: "Redis") -> BaseWorker:
    """The RQ worker of this name, without asking Redis."""
    worker = _Entry([QUEUE], name=name, connection=connection, serializer=JSONSerializer, prepare_for_work=False)
    worker.hostname, worker.pid = socket.gethostname(), os.getpid()
    return worker


def unregister(name: str, connection: "Redis") -> None:
    """Takes a worker that has ended out of RQ's registry.

    Raises:
        RedisError: it is still there.
    """
    gone = entry(name, connection)
    with connection.pipeline() as pipeline:
        worker_registration.unregister(gone, pipeline)
        pipeline.delete(gone.key)
        pipeline.execute()


class Presence:
    """Keeps a worker's entry up to date, and hears the commands that are sent to it."""

    def __init__(self, worker: BaseWorker, handler_timeout: float, interval: float = BEAT_SECONDS) -> None:
        self._worker = worker
        self._interval = interval
        # A worker that waits for events beats every few seconds.
        self._ttl = int(handler_timeout) + TTL_MARGIN_SECONDS
        self._beaten = -interval
        self._commands: Any = None
        worker.birth_date = now()

    def beat(self, state: WorkerStatus) -> bool:
        """Says that the worker lives, and in which state; not more often than the interval. Whether it did."""
        if monotonic() - self._beaten < self._interval:
            return False
        self._beaten = monotonic()
        try:
            self._register(state)
            self._hear()
        except Exception as error:  # noqa: BLE001 - whatever RQ or a command may get wrong
            log.debug("no heartbeat for RQ", worker=self._worker.name, **describe(error))
            self._commands = None
        return True

    def count(self, *, succeeded: bool) -> None:
        """Counts an event for RQ's statistics."""
        if succeeded:
            self._worker.successful_job_count += 1
        else:
            self._worker.failed_job_count += 1

    def leave(self) -> None:
        """Takes leave, as far as Redis answers."""
        try:
            unregister(self._worker.name, self._worker.connection)
        except RedisError as error:
            log.debug("no leave taken of RQ", worker=self._worker.name, **describe(error))

    def _register(self, state: WorkerStatus) -> None:
        """Writes the whole entry each time: it may have expired, and half an entry would live for ever."""
        worker = self._worker
        if worker.ip_address == "unknown":
            worker.ip_address = str(worker.connection.client_info()["addr"])
        worker.last_heartbeat = now()
        counts = {name: getattr(worker, name) for name in ("successful_job_count", "failed_job_count")}
        with worker.connection.pipeline() as pipeline:
            pipeline.hset(worker.key, mapping=worker.serialize() | counts | {"state": state.value})
            pipeline.expire(worker.key, self._ttl)
            worker_registration.register(worker, pipeline)
            pipeline.execute()

    def _hear(self) -> None:
        """Carries out what has been sent meanwhile, such as RQ's shutdown command, which is a SIGINT.

        RQ has a thread for it; without one, handlers may fork as they like.
        """
        if self._commands is None:
            self._commands = self._worker.connection.pubsub()  # type: ignore[no-untyped-call]
            self._commands.subscribe(**{self._worker.pubsub_channel_name: self._carry_out})
        while self._commands.get_message(timeout=0):
            pass

    def _carry_out(self, message: dict[Any, Any]) -> None:
        try:
            self._worker.handle_payload(message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - anybody may publish anything
            log.warning("not a command of RQ", worker=self._worker.name, **describe(error))
