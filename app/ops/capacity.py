"""What a number of events a day needs, and what breaks first when there are more.

The constants are measured: deploy/SCALING.md says how, and a test holds the memory against a filled server.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

RECORD_BYTES = 930
"""Memory of a finished event's record, over its body, with an attempt and one handler."""
INDEX_BYTES = 470
"""Of its rows in the indexes: by its end, its type and its resource."""
RESOURCE_BYTES = 170
"""Of what is kept of its resource and handler, for as long as the record."""
MARKER_BYTES = 95
"""Of what recognises a redelivery, for as long as `JOBHOOK_DEDUPE_WINDOW`."""
EMPTY_SERVER_BYTES = 3 * 1024**2
LOGGED_BYTES = 2800
"""What an event adds to the append-only file, over its body, from its arrival to its end."""
REWRITES = 2.0
"""By how much the file may outgrow what is in it before the server writes it anew."""
COPY_WHILE_REWRITING = 1.0
"""And the new one is on disk beside the old one."""

RECEIVER_PSS_BYTES = 58 * 1024**2
SUPERVISOR_PSS_BYTES = 31 * 1024**2
WORKER_PSS_BYTES = 30 * 1024**2
"""Resident memory, what is shared counted in parts, after some work and without what handlers import."""

RECEIVER_PER_SECOND = 4_000
"""Deliveries that a receiver process acknowledges on one core, durably."""
WORKER_OWN_SECONDS = 0.000_25
"""What an event costs a worker beside its handlers."""
REDIS_SECONDS = 0.000_2
"""What an event costs the server's one thread, from its arrival to its end, with the share of an fsync."""
BUSY_SHARE = 0.5
"""How much of a receiver, a worker or the server may be used at the peak: the rest is for redeliveries and faults."""

SECONDS_A_DAY = 86_400.0
FACTORS = (1, 10, 100, 10_000)


@dataclass(frozen=True, slots=True)
class Load:
    """What comes in, and how long it is kept."""

    events_per_day: float
    body_bytes: float
    retention: float
    """Seconds for which a finished event's record is kept."""
    dedupe_window: float
    """Seconds for which a redelivery is recognised."""
    handler_seconds: float
    """How long the handlers of an event take."""
    peak: float
    """How much more comes in the busiest seconds than on average."""
    api_calls: float
    """Requests to JobsiteOn's API that an event's handlers make."""

    def times(self, factor: float) -> "Load":
        """The same with so many times the events."""
        return Load(**asdict(self) | {"events_per_day": self.events_per_day * factor})


@dataclass(frozen=True, slots=True)
class Limits:
    """What there is."""

    memory: float
    """Bytes: Redis's `maxmemory`, or what its machine has to spare."""
    workers: int
    api_per_minute: float


@dataclass(frozen=True, slots=True)
class Need:
    """What a load needs."""

    factor: int
    events_per_day: float
    per_second_at_peak: float
    memory: float
    """Bytes in Redis, once so many events are there as their time allows."""
    log: float
    """Bytes on its disk at most: the append-only file and, while it is written anew, its successor."""
    log_written_per_day: float
    receivers: int
    """Processes."""
    workers: int
    processes_memory: float
    """Bytes of all of them, with one supervisor."""
    redis_busy: float
    """The share of its one thread at the peak."""
    api_per_minute: float
    """On average: what is over the limit at the peak waits."""
    too_much: tuple[str, ...]
    """What is beyond its limit, the worst first."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def memory(load: Load) -> float:
    """Bytes that Redis uses for the events of a load, over an empty server."""
    kept = load.events_per_day * load.retention / SECONDS_A_DAY
    recognised = load.events_per_day * max(load.dedupe_window, load.retention) / SECONDS_A_DAY
    return kept * (load.body_bytes + RECORD_BYTES + INDEX_BYTES + RESOURCE_BYTES) + recognised * MARKER_BYTES


def need(load: Load, limits: Limits, factor: int = 1) -> Need:
    """What so many times a load needs, and what of it is more than there is."""
    load = load.times(factor)
    peak = load.events_per_day / SECONDS_A_DAY * load.peak
    used = EMPTY_SERVER_BYTES + memory(load)
    receivers = max(1, ceil(peak / (RECEIVER_PER_SECOND * BUSY_SHARE)))
    workers = max(1, ceil(peak * (load.handler_seconds + WORKER_OWN_SECONDS) / BUSY_SHARE))
    redis_busy = peak * REDIS_SECONDS
    api = load.events_per_day * load.api_calls / (SECONDS_A_DAY / 60)
    return Need(
        factor=factor,
        events_per_day=load.events_per_day,
        per_second_at_peak=peak,
        memory=used,
        log=used * (REWRITES + COPY_WHILE_REWRITING),
        log_written_per_day=load.events_per_day * (LOGGED_BYTES + load.body_bytes),
        receivers=receivers,
        workers=workers,
        processes_memory=receivers * RECEIVER_PSS_BYTES + workers * WORKER_PSS_BYTES + SUPERVISOR_PSS_BYTES,
        redis_busy=redis_busy,
        api_per_minute=api,
        too_much=tuple(
            _beyond(
                ("memory of Redis", used / limits.memory),
                ("limit of JobsiteOn's API", api / limits.api_per_minute),
                ("workers", workers / limits.workers),
                ("one receiver process", float(receivers)),
                ("one Redis", redis_busy / BUSY_SHARE),
            )
        ),
    )


def needs(load: Load, limits: Limits, factors: Iterable[int] = FACTORS) -> Iterator[Need]:
    """The same for growing numbers of events."""
    return (need(load, limits, factor) for factor in factors)


def _beyond(*shares: tuple[str, float]) -> list[str]:
    """The names of those that use more than all there is, the worst first."""
    return [name for name, share in sorted(shares, key=lambda share: -share[1]) if share > 1]
