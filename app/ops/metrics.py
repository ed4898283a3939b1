"""Metrics for Prometheus.

What Redis knows (deliveries, attempts, events by state) is read from Redis when it is scraped, and so
is the same whichever receiver is asked: aggregate it with `max`, not `sum`. What only a receiver knows
(refusals, latency) is counted in its process, and across the processes of one `jobhook serve`.
"""

import os
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from app.config.settings import MULTIPROCESS_DIR
from app.inbox.record import Stats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# Name, help, label and its values, so that every series is there from the first scrape on.
_COUNTERS = (
    ("deliveries", "Deliveries answered 200.", "status", ("accepted", "duplicate", "revived", "conflict")),
    ("attempts", "Attempts ended.", "outcome", ("done", "retry", "dead", "crashed")),
    ("events", "Events ended, and those no handler wanted.", "end", ("done", "dead", "unhandled")),
)


class Metrics:
    """The counters of this process, and a scrape of them together with what Redis knows.

    `reasons` are those for which a request may be refused.
    """

    def __init__(self, stats: Callable[[], Stats], reasons: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "jobhook_ack_seconds",
            "Time from the request's headers to the 200.",
            buckets=_LATENCY_BUCKETS_SECONDS,
            registry=self._registry,
        )
        refused = Counter("jobhook_refused", "Requests refused, by reason.", ["reason"], registry=self._registry)
        self._refused = {reason: refused.labels(reason) for reason in reasons}
        self._inbox = _InboxCollector(stats)
        self.acknowledged = self._latency.observe

    def refused(self, reason: str) -> None:
        """Counts a refusal by its reason."""
        self._refused[reason].inc()

    def scrape(self) -> bytes:
        """The metrics in Prometheus' text format."""
        registry = CollectorRegistry()
        if MULTIPROCESS_DIR in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry = self._registry
        inbox = CollectorRegistry()
        inbox.register(self._inbox)
        return generate_latest(registry) + generate_latest(inbox)


class _InboxCollector(Collector):
    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("jobhook_redis_up", "Whether Redis answers.")
        try:
            stats = self._stats()
        except RedisError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        for name, help, label, values in _COUNTERS:
            family = CounterMetricFamily(f"jobhook_{name}", help, labels=[label])
            for value in values:
                family.add_metric([value], stats.counts.get(f"{name}:{value}", 0))
            yield family
        events = GaugeMetricFamily("jobhook_inbox_events", "Events recorded, by state.", labels=["state"])
        for state, number in stats.states.items():
            events.add_metric([state], number)
        yield events
        yield GaugeMetricFamily(
            "jobhook_oldest_open_event_seconds", "Age of the oldest unfinished event.", stats.oldest_open_seconds
        )
