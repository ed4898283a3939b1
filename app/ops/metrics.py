"""Metrics for Prometheus.

What Redis knows (deliveries, attempts, events by state) is read from Redis when it is scraped, and so
is the same whichever receiver is asked: aggregate it with `max`, not `sum`. What only a receiver knows
(refusals, latency, log lines dropped) is counted in its process, and across the processes of one `jobhook serve`.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client import values as client_values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from redis.exceptions import RedisError

from app.config.keys import CURRENT, PREVIOUS
from app.config.names import METRICS_FOLDER
from app.errors import describe
from app.inbox.measured import OTHER, OUTCOMES, RUN_SECONDS, WAIT_SECONDS, Series
from app.inbox.measured import Measured as HandlersMeasured
from app.inbox.record import Stats
from app.ops import streams
from app.ops.health import WORKERS_SEEN_WITHIN_SECONDS
from app.ops.keys import Measured

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LATENCY_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# Name, help, label and its values, so that every series is there from the first scrape on.
_COUNTERS = (
    ("deliveries", "Deliveries answered 200.", "status", ("accepted", "duplicate", "revived", "conflict")),
    (
        "attempts",
        "Attempts ended; `wait`: nothing had failed.",
        "outcome",
        ("done", "retry", "wait", "dead", "crashed"),
    ),
    ("alerts", "Alerts by what became of them at a destination.", "end", ("sent", "failed", "given_up")),
    ("events", "Events ended, and those no handler wanted.", "end", ("done", "dead", "unhandled")),
)


_CLIENTS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""What prometheus-client goes by. Where somebody else has set it, other processes may be counting there."""

log = structlog.stdlib.get_logger(__name__)


_FOLDER_PREFIX = "jobhook-metrics-"
FORWARD = "forward "
"""What the names of handlers begin with that are destinations."""


@contextmanager
def shared(processes: int) -> Iterator[None]:
    """Has the receiver processes started in it add up their metrics, in files of a folder of their own."""
    os.environ.pop(METRICS_FOLDER, None)
    if processes == 1:
        yield
        return
    _remove_left_folders()
    with TemporaryDirectory(prefix=_FOLDER_PREFIX, ignore_cleanup_errors=True) as folder:
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)  # systemd-tmpfiles leaves alone what is locked, and so do we
            os.environ[METRICS_FOLDER] = folder
            yield
        finally:
            os.close(lock)


def _remove_left_folders() -> None:
    """Of a `jobhook serve` that was killed: nobody holds their lock any more."""
    for left in Path(gettempdir()).glob(_FOLDER_PREFIX + "*"):
        with suppress(OSError):  # it is somebody else's, or in use
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rmtree(left)
            finally:
                os.close(lock)


class Metrics:
    """The counters of this process, and a scrape of them together with what Redis knows.

    `stats`, `keys` and `handlers` ask Redis; `reloads` tells whether the keys configured by now could be taken over.

    `reasons` are those for which a request may be refused, `causes` those for which a signature may not verify, and
    `not_kept` those for which a rejected delivery may not be kept.
    """

    def __init__(
        self,
        stats: Callable[[], Stats],
        keys: Callable[[], Iterable[Measured]],
        reloads: Callable[[], bool],
        handlers: Callable[[], HandlersMeasured],
        reasons: Iterable[str],
        causes: Iterable[str] = (),
        not_kept: Iterable[str] = (),
    ) -> None:
        self._folder = _use_shared_folder()
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "jobhook_ack_seconds",
            "Time from the request's headers to the 200.",
            buckets=_LATENCY_BUCKETS_SECONDS,
            registry=self._registry,
        )
        refused = Counter("jobhook_refused", "Requests refused, by reason.", ["reason"], registry=self._registry)
        self._refused = {reason: refused.labels(reason) for reason in reasons}
        unauthentic = Counter(
            "jobhook_unauthentic", "Signatures that did not verify, by cause.", ["cause"], registry=self._registry
        )
        self._unauthentic = {cause: unauthentic.labels(cause) for cause in causes}
        lost = Counter(
            "jobhook_rejected_not_kept",
            "Deliveries with a bad signature that were not kept, by reason.",
            ["reason"],
            registry=self._registry,
        )
        self._not_kept = {reason: lost.labels(reason) for reason in not_kept}
        verified = Counter(
            "jobhook_verified",
            "Signatures that a key has verified, by the key's role.",
            ["key"],
            registry=self._registry,
        )
        self._verified = {role: verified.labels(role) for role in (CURRENT, PREVIOUS)}
        dropped = Counter("jobhook_log_lines_dropped", "Log lines that could not be written.", registry=self._registry)
        streams.count_dropped_by(dropped.inc)
        self._inbox = _InboxCollector(stats, keys, reloads, handlers)
        self.acknowledged = self._latency.observe

    def refused(self, reason: str) -> None:
        """Counts a refusal by its reason."""
        self._refused[reason].inc()

    def unauthentic(self, cause: str) -> None:
        """Counts a signature that did not verify, by its cause."""
        self._unauthentic[cause].inc()

    def not_kept(self, reason: str) -> None:
        """Counts a rejected delivery that is not kept, by the reason."""
        self._not_kept[reason].inc()

    def verified(self, role: str, number: int) -> None:
        """Counts signatures that a key has verified, by the key's role."""
        self._verified[role].inc(number)

    def scrape(self) -> bytes:
        """The metrics in Prometheus' text format."""
        inbox = CollectorRegistry()
        inbox.register(self._inbox)
        return self._of_processes() + generate_latest(inbox)

    def _of_processes(self) -> bytes:
        """What the receiver processes have counted. Where the files have been tidied away, what this one has."""
        if self._folder:
            registry = CollectorRegistry()
            try:
                MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
                if counted := generate_latest(registry):
                    return counted
                log.error("metrics of the other processes are gone", folder=str(self._folder))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a file costs nobody the rest
                log.error("metrics of the other processes are gone", folder=str(self._folder), **describe(error))
        return generate_latest(self._registry)


def _use_shared_folder() -> Path | None:
    """Decides for prometheus-client, which would have gone by its own variable, between memory and shared files."""
    folder = os.environ.get(METRICS_FOLDER)
    if folder is None or not Path(folder).is_dir():
        client_values.ValueClass = client_values.MutexValue
        return None
    os.environ[_CLIENTS_FOLDER] = folder
    client_values.ValueClass = client_values.MultiProcessValue()  # type: ignore[no-untyped-call]
    return Path(folder)


class _InboxCollector(Collector):
    def __init__(
        self,
        stats: Callable[[], Stats],
        keys: Callable[[], Iterable[Measured]],
        reloads: Callable[[], bool],
        handlers: Callable[[], HandlersMeasured],
    ) -> None:
        self._handlers = handlers
        self._stats = stats
        self._keys = keys
        self._reloads = reloads

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "jobhook_keys_not_reloaded",
            "1 while the keys that are configured cannot be used, and those from before stay in force.",
            float(not self._reloads()),
        )
        up = GaugeMetricFamily("jobhook_redis_up", "Whether Redis answers.")
        try:
            stats, keys, handlers = self._stats(), self._keys(), self._handlers()
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
        yield GaugeMetricFamily(
            "jobhook_suspended", "1 while `rq suspend` keeps the workers from taking events.", float(stats.suspended)
        )
        if stats.swept_seconds_ago is not None:
            yield GaugeMetricFamily(
                "jobhook_sweep_age_seconds",
                "Since supervisors last swept: each does every second.",
                stats.swept_seconds_ago,
            )
        silent = sum(ago > WORKERS_SEEN_WITHIN_SECONDS for ago in stats.supervisors.values())
        yield GaugeMetricFamily("jobhook_silent_supervisors", "Supervisors that have not beaten for a while.", silent)
        yield GaugeMetricFamily("jobhook_pauses", "Pauses in force (`jobhook pause`).", len(stats.paused))
        age = GaugeMetricFamily(
            "jobhook_key_age_seconds",
            "Since a key became known here, by its role; to be replaced in time.",
            labels=["key"],
        )
        unused = GaugeMetricFamily(
            "jobhook_key_unused_seconds", "Since a key last verified a delivery, by its role.", labels=["key"]
        )
        for measured in keys:
            age.add_metric([measured.role], measured.age)
            unused.add_metric([measured.role], measured.unused)
        yield age
        yield unused
        yield from _measured(handlers)


def _measured(found: HandlersMeasured) -> Iterator[Metric]:
    """What workers have measured, by handler and by destination."""
    own = {name: series for name, series in found.handlers.items() if not name.startswith(FORWARD)}
    forwards = {name.removeprefix(FORWARD): one for name, one in found.handlers.items() if name.startswith(FORWARD)}
    for label, what, by_name in (("handler", "handler", own), ("destination", "forward", forwards)):
        runs = CounterMetricFamily(
            f"jobhook_{what}_runs",
            f"Runs, by {label}. `{OTHER}`: of names that came when there were too many.",
            labels=[label, "outcome"],
        )
        seconds = HistogramMetricFamily(f"jobhook_{what}_seconds", f"Duration of a run, by {label}.", labels=[label])
        for name, series in sorted(by_name.items()):
            for outcome in OUTCOMES:
                runs.add_metric([name, outcome], series.outcomes[outcome])
            seconds.add_metric([name], *_histogram(series, RUN_SECONDS))
        yield runs
        yield seconds
    errors = CounterMetricFamily(
        "jobhook_handler_errors", f"Errors of handlers, by class. `{OTHER}`: as above.", labels=["error"]
    )
    for name, number in sorted(found.errors.items()):
        errors.add_metric([name], number)
    yield errors
    wait = HistogramMetricFamily("jobhook_wait_seconds", "From the first delivery of an event to its first attempt.")
    wait.add_metric([], *_histogram(found.waits, WAIT_SECONDS))
    yield wait
    full = GaugeMetricFamily(
        "jobhook_series_full", f"1 while new names are counted as `{OTHER}`, by what is counted.", labels=["what"]
    )
    for name, is_full in found.is_full.items():
        full.add_metric([name], float(is_full))
    yield full


def _histogram(series: Series, ends: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    """Buckets and sum, as the library takes them: each bucket has those below it too."""
    totals = accumulate(series.classes[which] for which in range(len(ends)))
    return [(_bound(end), total) for end, total in zip(ends, totals, strict=True)], series.seconds


def _bound(end: float) -> str:
    return str(floatToGoString(end))  # type: ignore[no-untyped-call]
