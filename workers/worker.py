"""An RQ worker that is lean and loses nothing.

It registers, beats, suspends and stops as RQ's users know it (`rq info`, `rq suspend`, SIGTERM, the
pool). What differs is how it takes and ends jobs:

- It waits without popping (a BLMOVE of the list's head onto itself), then takes a job and leases its
  event in one script. RQ pops first and starts later; a worker that dies in between loses the job.
- The end of one event and the start of the next share a round trip.
- Handlers run in this process: no fork per job. The supervisor replaces a process that dies.
- It beats once a second at most, not three times a job.
"""

import os
import signal
import time
from multiprocessing.sharedctypes import RawValue
from time import monotonic
from types import FrameType
from typing import Any, Protocol

import structlog
from redis.client import Pipeline
from redis.exceptions import ConnectionError, RedisError  # noqa: A004
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from app.config.settings import Settings
from app.config.sources import load_settings
from app.errors import describe
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox
from app.inbox.record import Assignment, Ended
from workers.loading import load
from workers.processor import Processor

WORKER_TTL_SECONDS = 20
"""RQ waits 15 s less than this for a job: how soon an idle worker notices that its supervisor is gone."""
KEY_TTL_MARGIN_SECONDS = 60
BEAT_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
ANSWER_SECONDS = 2
"""How much longer than it waits for a job a worker waits for an answer, before it looks for Redis anew."""

log = structlog.stdlib.get_logger(__name__)


NOT_READY = -1.0


class KillTime(Protocol):
    """A number shared with the supervisor: when to kill this worker, by the monotonic clock.

    0 for never, `NOT_READY` until it is ready to work.
    """

    value: float


class JobhookWorker(SimpleWorker):
    """Works on Jobhook's queue, one event at a time.

    Its connection must not retry by itself: a repeated take would lease a second event.
    """

    _processor: Processor

    def __init__(
        self,
        *args: Any,
        settings: Settings | None = None,
        deadline: KillTime | None = None,
        supervisor: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("worker_ttl", WORKER_TTL_SECONDS)
        kwargs["serializer"] = JSONSerializer
        super().__init__(*args, **kwargs)
        self._inbox = Inbox(self.connection, settings or load_settings())
        self._deadline: KillTime = RawValue("d", 0.0) if deadline is None else deadline  # it is falsy
        # Told by the supervisor itself: asked here, it may have gone already, and would never be missed.
        self._supervisor = os.getppid() if supervisor is None else supervisor
        self._ended: Ended | None = None
        self._beaten = -BEAT_SECONDS

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Loads the handlers, then registers as RQ does."""
        self._processor = Processor(self._inbox, load(self._inbox.settings))
        super().bootstrap(*args, **kwargs)
        self._deadline.value = 0.0

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Any, Queue] | None:
        """Ends the event in hand and waits for the next; None to stop. In burst mode `timeout` is None."""
        idle_since = monotonic()
        while not self._should_stop():
            # Before asking: a SIGTERM must from now on wait for the event that may be on its way.
            self._state = WorkerStatus.BUSY.value
            assignment = self._work()
            if assignment.taken:
                return assignment.taken, self.queues[0]
            self._state = WorkerStatus.IDLE.value
            idle_for = monotonic() - idle_since
            if timeout is None or self._should_stop() or (max_idle_time is not None and idle_for >= max_idle_time):
                return None
            if assignment.suspended:
                super().check_for_suspension(burst=False)
            else:
                self._wait(timeout if max_idle_time is None else max(1, min(timeout, max_idle_time)))
        return None

    def execute_job(self, job: Any, queue: Queue) -> None:
        """Processes an event, which stands in RQ's loop where a job would.

        Its end is recorded with the next assignment, or now if there is none.
        """
        self._deadline.value = monotonic() + self._inbox.settings.handler_timeout + LEASE_MARGIN_SECONDS / 2
        self._ended = self._processor.process(job)
        self._deadline.value = 0.0
        if self._ended and self._ended.outcome == "done":
            self.successful_job_count += 1
        elif self._ended:
            self.failed_job_count += 1
        if self._should_stop():
            self._work(want="")

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: taking an event tells whether workers are suspended, at no extra cost."""

    def heartbeat(self, timeout: int | None = None, pipeline: "Pipeline | None" = None) -> None:
        """Tells RQ's monitoring that this worker lives, once a second at most."""
        # The key must outlive the longest handler, because none is sent while one runs.
        ttl = timeout or int(self._inbox.settings.handler_timeout) + self.worker_ttl + KEY_TTL_MARGIN_SECONDS
        if pipeline is not None:
            super().heartbeat(ttl, pipeline)
        elif monotonic() - self._beaten >= BEAT_SECONDS:
            self._beaten = monotonic()
            try:
                with self.connection.pipeline(transaction=False) as beat:
                    beat.hset(self.key, "state", self._state)
                    beat.hset(self.key, "successful_job_count", self.successful_job_count)
                    beat.hset(self.key, "failed_job_count", self.failed_job_count)
                    super().heartbeat(ttl, beat)
                    beat.execute()
            except RedisError as error:  # monitoring only; the next assignment deals with the connection
                log.debug("no heartbeat", **describe(error))

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a command has failed; RQ would give a Redis that hangs 15."""
        return int(self.dequeue_timeout + ANSWER_SECONDS)

    def _pubsub_exception_handler(self, exc: Exception, *arguments: Any) -> None:
        """Whatever it is, the thread that listens for RQ's commands goes on: `_recover` has cut its connection."""
        super()._pubsub_exception_handler(ConnectionError(type(exc).__name__), *arguments)

    def set_shutdown_requested_date(self) -> None:
        """Nothing: called by a signal, it would talk to Redis in the middle of a handler or another command."""

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal: ends as if killed. The event in hand is tried again."""
        os.kill(os.getpid(), signal.SIGKILL)

    def teardown(self) -> None:
        """Records what is still in hand, then takes leave of RQ."""
        if self._ended:
            self._work(want="")
        self._processor.close()
        super().teardown()  # type: ignore[no-untyped-call]

    def _start_scheduler(self, *args: Any, **kwargs: Any) -> None:
        """Not needed: the supervisor's sweep does what RQ's scheduler would."""

    def _should_stop(self) -> bool:
        return self._stop_requested or os.getppid() != self._supervisor

    def _work(self, want: str = "next") -> Assignment:
        while True:
            try:
                assignment = self._inbox.work(self.name, self._ended, want)
            except RedisError as error:
                log.warning("redis does not answer", worker=self.name, **describe(error))
                self._recover()
                want = "" if self._should_stop() else want
                continue
            self._settle(assignment)
            return assignment

    def _recover(self) -> None:
        """Once Redis answers again: records the end in hand, and gives back what was taken unknowingly."""
        while True:
            time.sleep(RECONNECT_SECONDS)
            self.connection.connection_pool.disconnect()  # a demoted server keeps its clients
            try:
                self._settle(self._inbox.work(self.name, self._ended, want=""))
                self._inbox.release(self.name, "The worker lost its connection to Redis.", counts=False)
            except RedisError as error:
                log.debug("redis does not answer", worker=self.name, **describe(error))
            else:
                return

    def _settle(self, assignment: Assignment) -> None:
        if assignment.recorded is False and self._ended:
            log.error("attempt not recorded: its lease was lost", id=self._ended.id, worker=self.name)
        self._ended = None

    def _wait(self, timeout: int) -> None:
        """Waits until there is a job, without popping it: moves the head of the list onto itself."""
        key = self.queues[0].key
        try:
            with self.connection.pipeline(transaction=False) as pipeline:
                pipeline.hset(self.key, "state", WorkerStatus.IDLE.value)
                pipeline.blmove(key, key, timeout, "LEFT", "LEFT")
                pipeline.execute()
        except RedisError as error:
            log.warning("redis does not answer", worker=self.name, **describe(error))
            time.sleep(RECONNECT_SECONDS)
