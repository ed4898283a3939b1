"""A circuit breaker for each destination, shared by all workers on all machines through Redis.

    closed ── FAILURES in a row ──▶ open ── OPEN_SECONDS ──▶ half-open ── the probe succeeds ──▶ closed
                                     ▲                           │
                                     └───── the probe fails ─────┘

Two keys that expire: the number of failures in a row, and once these are enough, a gate. Who finds no
gate may send, after having put one there: it is the probe, and keeps out the others while it is on
its way. If it dies, the gate expires. Each command is atomic, and every state in between is safe: at
worst a second probe gets through. No clock but that of Redis counts.
"""

import contextlib
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.inbox.inbox import PREFIX

FAILURES = 5
"""In a row: some more than a restart of the destination causes with two workers."""
OPEN_SECONDS = 30.0
"""Long enough for a restart, short enough to be back soon after a longer outage."""
MOST_PERIODS = 20
"""Of the open time, that an event waits before it asks again: 10 minutes."""
MEMORY_SECONDS = 3600
"""Failures longer ago than this say nothing about now."""

log = structlog.stdlib.get_logger(__name__)


class Circuit:
    """The circuit of one destination."""

    def __init__(
        self, redis: "Redis", destination: str, probe_seconds: float, open_seconds: float = OPEN_SECONDS
    ) -> None:
        self._redis = redis
        self._destination = destination
        self._probe_ms = round(probe_seconds * 1000)
        self._open_ms = round(open_seconds * 1000)
        self._failures = f"{PREFIX}circuit:{destination}:failures"
        self._gate = f"{PREFIX}circuit:{destination}:gate"

    def enter(self) -> float:
        """0 to go ahead; else the seconds to wait. Who goes ahead reports how it went.

        The longer an outage lasts, the longer the wait, because each return of an event costs a line
        of its history: about as long as the outage so far, up to a limit.

        Raises:
            RedisError: Redis does not answer.
        """
        probes_failed = self._number(self._redis.get(self._failures)) - FAILURES
        if probes_failed < 0:
            return 0.0
        if self._redis.set(self._gate, b"probe", nx=True, px=self._probe_ms):
            return 0.0
        # Negative if the gate has expired just now: then the next to come is the probe.
        left = max(self._number(self._redis.pttl(self._gate)), 1) / 1000
        return left * min(probes_failed + 1, MOST_PERIODS)

    def succeeded(self) -> None:
        """Closes the circuit."""
        with contextlib.suppress(RedisError):  # the event has arrived: no reason to send it again
            self._redis.delete(self._failures, self._gate)

    def failed(self) -> None:
        """Counts a failure, and opens the circuit if it is one too many."""
        with contextlib.suppress(RedisError), self._redis.pipeline() as pipeline:
            if self._redis.get(self._gate) == b"open":
                return  # it was on its way when the circuit opened, and tells nothing new
            pipeline.incr(self._failures)
            pipeline.expire(self._failures, MEMORY_SECONDS)
            failures = pipeline.execute()[0]
            if failures >= FAILURES:
                self._redis.set(self._gate, b"open", px=self._open_ms)
                log.warning(
                    "circuit opened",
                    destination=self._destination,
                    failures=failures,
                    seconds=self._open_ms / 1000,
                )

    @staticmethod
    def _number(answer: Any) -> int:
        return int(answer or 0)
