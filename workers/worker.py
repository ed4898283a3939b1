"""A worker: takes one event after the other, and loses none.

- It waits without popping anything that matters: for a token, of which there is one per event. Then it takes an
  event and leases it in one script. RQ pops first and starts later; a worker that dies in between loses the job.
- The end of one event and the start of the next share a round trip.
- Handlers run in this process: no fork per event. The supervisor replaces a process that dies.
- It is known to RQ (`rq info`, `rq suspend`, the shutdown command), but does not depend on that: see presence.py.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import monotonic, sleep
from typing import Any

import structlog
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError, TimeoutError  # noqa: A004
from redis.retry import Retry
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from app.config.settings import Settings
from app.config.sources import load_settings
from app.errors import describe
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox
from app.inbox.record import Assignment, Ended, Record
from app.store import connections
from workers.loading import load
from workers.presence import Presence
from workers.processor import Processor
from workers.status import Status
from workers.stopping import Stop

WAIT_SECONDS = 5
"""How long a worker waits for a token before it looks by itself; how soon it notices that its supervisor is gone."""
ANSWER_SECONDS = 2
"""How much longer than it waits for a token a worker waits for an answer, before it looks for Redis anew."""
SUSPENDED_SECONDS = 1.0
"""How often a suspended worker looks whether it may go on."""
RECONNECT_SECONDS, LONGEST_RECONNECT_SECONDS = 0.5, 5.0
"""The pause after an error of Redis; it doubles while an answer is an error."""
LEAVE_SECONDS = LEASE_MARGIN_SECONDS
"""How long a worker that works no more may take to end: libraries may have threads to wait for."""

log = structlog.stdlib.get_logger(__name__)


def connect(settings: Settings) -> Inbox:
    """An inbox for a worker. Its connection does not retry by itself: a repeated take would lease a second event."""
    return Inbox(connections.connect(settings.redis_url, timeout=WAIT_SECONDS + ANSWER_SECONDS, retries=0), settings)


class Worker:
    """Works on the inbox until it is stopped, one event at a time. For the main thread of a process."""

    def __init__(
        self,
        name: str,
        inbox: Inbox,
        processor: Processor,
        presence: Presence,
        *,
        stop: Stop,
        status: Status | None = None,
        supervisor: int | None = None,
    ) -> None:
        self.name = name
        self._inbox = inbox
        self._processor = processor
        self._presence = presence
        self._stop = stop
        self._status = status or Status.shared()
        # The supervisor passes its own pid: if the worker asked for its parent's and the supervisor had died before,
        # it would watch the wrong process for ever.
        self._supervisor = os.getppid() if supervisor is None else supervisor
        self._ended: Ended | None = None
        """The end of an event that is not recorded yet."""
        self._unsure = False
        """Whether an answer was lost, which may have brought an event."""
        self._handled = 0
        self._most = inbox.settings.worker_max_events or inf
        self._memory = inbox.settings.worker_max_memory or inf
        self._is_full = False

    def run(self, *, burst: bool = False, most: int | None = None, idle_seconds: float | None = None) -> int:
        """Works until stopped; in burst mode until there is nothing to do, with `most` so many events, and with
        `idle_seconds` until it has had nothing to do for so long. Returns how many events it had in hand.
        """
        self._most = min(self._most, most or inf)
        self._status.is_ready = True
        busy_at = monotonic()
        while not self._should_stop:
            # With an end in hand, a stop has to wait until that is recorded. Without, the answer may be given up:
            # what it brings is released by whoever sees this worker end.
            ask = partial(self._exchange, "next")
            assignment = ask() if self._ended else self._stop.unless_stopped(ask)
            if assignment is None:
                break
            if assignment.taken:
                self._process(assignment.taken, assignment.paused)
                busy_at = monotonic()
            elif assignment.damaged:
                continue
            elif burst or (idle_seconds is not None and monotonic() - busy_at >= idle_seconds):
                break
            else:
                self._stop.unless_stopped(partial(self._idle, suspended=assignment.suspended))
        if self._ended:
            self._exchange("")
        self._leave()
        return self._handled

    @property
    def _should_stop(self) -> bool:
        if self._stop.asked or os.getppid() != self._supervisor:
            return True
        return self._handled >= self._most or self._is_full

    def _process(self, record: Record, paused: Mapping[str, float]) -> None:
        self._beat(WorkerStatus.BUSY)
        self._status.has_event = True
        self._status.kill_at = monotonic() + self._inbox.settings.handler_timeout + LEASE_MARGIN_SECONDS / 2
        self._ended = self._processor.process(record, paused)
        self._status.kill_at = inf  # to record it may take as long as Redis is away
        self._status.has_event = self._ended is not None
        self._handled += 1
        if self._ended:
            self._presence.count(succeeded=self._ended.outcome == "done")
            if self._processor.must_tell_of(self._ended, record):
                self._tell_of(self._ended, record)

    def _tell_of(self, ended: Ended, record: Record) -> None:
        """Records that an event has died, by itself and at once; then whoever wants to know is told."""
        if self._exchange("").recorded:
            self._status.kill_at = monotonic() + self._inbox.settings.handler_timeout + LEASE_MARGIN_SECONDS / 2
            self._processor.tell_of(ended, record)
            self._status.kill_at = inf

    def _exchange(self, want: str) -> Assignment:
        """Records the end in hand and brings what is wanted, as soon as Redis lets it."""
        pause = RECONNECT_SECONDS
        measures = self._processor.measures
        while True:
            counts = measures.due()
            try:
                if self._unsure:
                    self._settle(self._inbox.work(self.name, self._ended, want=""))
                    self._inbox.release(self.name, "The worker lost its connection to Redis.", counts=False)
                    self._unsure = False
                assignment = self._inbox.work(self.name, self._ended, want, counts)
            except RedisError as error:
                self._unsure = True
                pause = self._tell(error, pause)
                sleep(pause)
                # After a failover, the connections may still lead to the server that was the primary.
                self._inbox.redis.connection_pool.disconnect()
                want = "" if self._should_stop else want
            else:
                measures.sent(counts)
                self._settle(assignment)
                return assignment

    def _tell(self, error: RedisError, pause: float) -> float:
        """Says what Redis has answered, if anything. Returns how long to wait before the next try."""
        if isinstance(error, ConnectionError | TimeoutError | ReadOnlyError):
            log.warning("redis does not answer", worker=self.name, **describe(error))
            return RECONNECT_SECONDS
        # The first word says what kind of error it is; what follows may quote anything.
        log.error("redis answers with an error", worker=self.name, says=str(error).split(" ", 1)[0], **describe(error))
        return min(2 * pause, LONGEST_RECONNECT_SECONDS)

    def _settle(self, assignment: Assignment) -> None:
        if assignment.recorded is False and self._ended:
            log.error("attempt not recorded: its lease was lost", id=self._ended.id, worker=self.name)
        if assignment.damaged:
            log.error("event set aside", worker=self.name, reason=str(assignment.damaged))
        self._ended = None
        self._status.has_event = False

    def _idle(self, *, suspended: bool) -> None:
        """Waits until there may be something to do."""
        # Shortly, if RQ has not been told yet that this worker is idle.
        beaten = self._beat(WorkerStatus.SUSPENDED if suspended else WorkerStatus.IDLE)
        if suspended:
            sleep(SUSPENDED_SECONDS)
            return
        try:
            self._inbox.wait(WAIT_SECONDS if beaten else 1)
        except RedisError as error:
            sleep(self._tell(error, RECONNECT_SECONDS))

    def _beat(self, state: WorkerStatus) -> bool:
        beaten = self._presence.beat(state)
        if beaten and self._handled and self._memory < inf:
            self._is_full = memory_bytes() > self._memory
        return beaten

    def _leave(self) -> None:
        self._status.kill_at = monotonic() + LEAVE_SECONDS
        if self._is_full or (self._handled >= self._most and not self._stop.asked):
            log.info("worker has done its share", worker=self.name, events=self._handled, bytes=memory_bytes())
        self._processor.close()
        if counts := self._processor.measures.due(at_once=True):
            with suppress(RedisError):  # they are for metrics alone
                self._inbox.work(self.name, want="", counts=counts)
        self._presence.leave()


def memory_bytes() -> int:
    """Resident memory of this process, with what it shares; where /proc is not, the most that it ever was."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return getrusage(RUSAGE_SELF).ru_maxrss


class JobhookWorker(SimpleWorker):
    """A worker for `rq worker` and `rq worker-pool`, with `--worker-class workers.worker.JobhookWorker`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["serializer"] = JSONSerializer
        super().__init__(*args, **kwargs)
        self.connection.set_retry(Retry(NoBackoff(), 0))  # a repeated take would lease a second event

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a command has failed, unless the connection has its own."""
        return WAIT_SECONDS + ANSWER_SECONDS

    def work(
        self,
        burst: bool = False,
        *_: Any,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        **__: Any,
    ) -> bool:
        """Works on Jobhook's inbox; RQ's scheduler is not needed. Returns whether there was any event."""
        settings = load_settings()
        stop = Stop()
        inbox = Inbox(self.connection, settings)
        processor = Processor(inbox, load(settings))
        stop.listen()
        worker = Worker(self.name, inbox, processor, Presence(self, settings.handler_timeout), stop=stop)
        return worker.run(burst=burst, most=max_jobs, idle_seconds=max_idle_time) > 0
