"""What workers measure of handlers, and that it stays small."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.inbox import measured
from app.inbox.inbox import Inbox
from app.inbox.measured import ERRORS, OTHER, RUNS, Place
from app.ops.metrics import Metrics
from tests.support.deliveries import queue_events
from tests.support.inbox import pass_time, sweep
from workers import Permanent, RetryAfter
from workers.presence import Presence, entry
from workers.processor import Processor
from workers.registry import Registry
from workers.stopping import Stop
from workers.worker import Worker


def work(inbox: Inbox, registry: Registry) -> None:
    """A worker, until there is nothing to do."""
    presence = Presence(entry("w", inbox.redis), 5.0)
    Worker("w", inbox, Processor(inbox, registry), presence, stop=Stop()).run(burst=True)


def scrape(inbox: Inbox) -> dict[tuple[str, ...], float]:
    metrics = Metrics(inbox.stats, list, lambda: True, lambda: measured.measured(inbox.redis), [])
    families = text_string_to_metric_families(metrics.scrape().decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_runs_errors_and_waits_are_counted_by_name(inbox: Inbox) -> None:
    def book(event: Any) -> None:
        if event.type == "test.dead":
            raise Permanent("canary")
        if event.type == "test.fail":
            raise ValueError("canary")
        if event.type == "test.wait":
            raise RetryAfter(1, counts=False)

    registry = Registry()
    registry.add("book", book, "*")
    registry.add("forward https://erp.internal/hooks", lambda _: None, "test.ok", is_concurrent=True)
    for type in ("test.ok", "test.dead", "test.fail", "test.wait"):
        queue_events(inbox.settings, 2, type)
    work(inbox, registry)
    seen = scrape(inbox)
    expected = {
        ("jobhook_handler_runs_total", "book", "finished"): 2,
        ("jobhook_handler_runs_total", "book", "given_up"): 2,
        ("jobhook_handler_runs_total", "book", "failed"): 2,
        ("jobhook_handler_runs_total", "book", "waited"): 2,
        ("jobhook_handler_seconds_count", "book"): 8,
        ("jobhook_handler_seconds_bucket", "book", "+Inf"): 8,
        ("jobhook_forward_runs_total", "https://erp.internal/hooks", "finished"): 2,
        ("jobhook_forward_seconds_count", "https://erp.internal/hooks"): 2,
        ("jobhook_handler_errors_total", "builtins.ValueError"): 2,
        ("jobhook_handler_errors_total", "workers.retry.Permanent"): 2,
        ("jobhook_wait_seconds_count",): 8,
        ("jobhook_series_full", "runs"): 0,
        ("jobhook_series_full", "errors"): 0,
    }
    assert {name: seen[name] for name in expected} == expected
    assert seen["jobhook_handler_seconds_sum", "book"] > 0
    assert "canary" not in str(seen)


def test_only_the_first_attempt_counts_as_a_wait(inbox: Inbox) -> None:
    def flaky(event: Any) -> None:
        if event.attempt == 1:
            raise ValueError

    registry = Registry()
    registry.add("book", flaky, "*")
    (id,) = queue_events(inbox.settings, 1)
    work(inbox, registry)
    pass_time(inbox, id, 3600)
    sweep(inbox)
    work(inbox, registry)
    assert inbox.get(id).state == "done"
    assert scrape(inbox)["jobhook_wait_seconds_count",] == 1


@pytest.mark.parametrize("hash", [RUNS, ERRORS])
def test_names_without_end_are_counted_together(hash: str, inbox: Inbox) -> None:
    """P3: whatever handlers are named or raise."""
    most = measured.MOST[hash]
    for start in range(0, 2 * most, 50):
        inbox.work("", want="", counts={Place(hash, f"name {n}", OTHER): 1 for n in range(start, start + 50)})
    key = f"jobhook:measured:{hash}"
    assert inbox.redis.hlen(key) == most + 1
    assert inbox.redis.hget(key, OTHER) == str(most).encode()
    inbox.work("", want="", counts={Place(hash, "name 1", OTHER): 5})
    assert inbox.redis.hget(key, "name 1") == b"6"
    assert measured.measured(inbox.redis).is_full[hash]


def test_nothing_that_a_person_has_put_there_stops_the_work_or_a_scrape(inbox: Inbox) -> None:
    inbox.redis.set("jobhook:measured:runs", "a person's hand")
    inbox.work("", want="", counts=dict(measured.run("book", "finished", 0.02)))
    fields: Any = {"run finished x book": 1, "run": 2, "time book": "much", "wait z": 1, "run finished 99 book": 1}
    inbox.redis.hset("jobhook:measured:runs", mapping=fields)
    assert scrape(inbox)["jobhook_handler_runs_total", "book", "finished"] >= 1


def test_a_histogram_has_each_duration_in_its_class_and_those_above(inbox: Inbox) -> None:
    for seconds in (0.004, 0.005, 0.006, 31.0):
        inbox.work("", want="", counts=dict(measured.run("book", "finished", seconds)))
    seen = scrape(inbox)
    buckets = {end: seen["jobhook_handler_seconds_bucket", "book", end] for end in ("0.005", "0.01", "30.0", "+Inf")}
    assert buckets == {"0.005": 2, "0.01": 3, "30.0": 3, "+Inf": 4}
    assert seen["jobhook_handler_seconds_sum", "book"] == pytest.approx(31.015)
