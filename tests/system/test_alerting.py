"""Alerts, told by real supervisors to a real sink."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.processes import children
from tests.support.sink import Sink, sink
from tests.support.stack import MakeStack, Stack

TOKEN = "token-of-the-sink-canary"
PATIENCE_SECONDS = 80.0
"""A turn that its holder has left takes half a minute to run out."""


@pytest.fixture
def taker() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack, taker: Sink) -> Stack:
    return make_stack(server.url, JOBHOOK_ALERT_URLS=taker.url(TOKEN))


def die(stack: Stack) -> str:
    """Has an event die, and gives its id."""
    (id,) = queue_events(stack.settings, 1, "test.permanent")
    stack.wait_for(id, "dead")
    return id


def names(stack: Stack) -> list[str]:
    """The fields that all is kept in."""
    fields: Any = stack.redis.hkeys("jobhook:alerts")
    return [field.decode() for field in fields]


def workers(stack: Stack) -> set[int]:
    """The process ids of the workers, as RQ knows them."""
    redis: Any = stack.redis
    return {int(redis.hget(key, "pid") or 0) for key in redis.smembers("rq:workers")}


def watcher(stack: Stack, supervisor: int) -> int | None:
    """The process of a supervisor that looks for alerts, if there is one now."""
    return next((pid for pid in children(supervisor) if pid not in workers(stack)), None)


def test_the_first_death_of_a_cause_is_told_once_by_two_supervisors(stack: Stack, taker: Sink) -> None:
    stack.start_workers()
    stack.start_workers()
    id = die(stack)
    wait_until(lambda: taker.taken, "the alert", PATIENCE_SECONDS)
    looked = stack.redis.hget("jobhook:alerts", "looked")
    wait_until(lambda: stack.redis.hget("jobhook:alerts", "looked") != looked, "another look", PATIENCE_SECONDS)
    (told,) = taker.taken
    assert len(taker.asked) == 1
    assert told["type"] == "warning"
    assert told["title"].startswith("Jobhook: events have died in the handler tests.support.handlers.fail_for_good")
    assert f"the last one is {id} of type test.permanent" in told["message"]
    assert "workers.retry.Permanent" in told["message"]
    assert stack.redis.ttl("jobhook:alerts") > 86400
    (shown,) = orjson.loads(stack.jobhook("alerts", "--json").stdout)["alerts"]
    assert shown["alert"].startswith("dead:tests.support.handlers.fail_for_good:")
    assert "json #1: last sent " in stack.jobhook("alerts").stdout
    assert TOKEN not in stack.logs()


def test_what_a_killed_supervisor_has_not_sent_the_next_one_sends_once(stack: Stack, taker: Sink) -> None:
    """P2: killed after the claim, before the message was taken, with the process that sends it."""
    taker.go_on.clear()
    killed = stack.start_workers()
    other = stack.start_workers()
    die(stack)
    wait_until(lambda: taker.asked, "the alert to be under way", PATIENCE_SECONDS)
    looking = {pid: watcher(stack, pid) for pid in (killed.pid, other.pid)}
    ((holder, process),) = [(supervisor, process) for supervisor, process in looking.items() if process]
    os.kill(holder, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    assert taker.taken == []
    taker.asked.clear()
    taker.go_on.set()
    wait_until(lambda: len(taker.asked) == 1, "the alert by the other one", PATIENCE_SECONDS)
    wait_until(lambda: not [name for name in names(stack) if name.startswith("post:")], "the note of it")
    assert taker.asked[0]["title"].startswith("Jobhook: events have died")


def test_a_taker_that_hangs_keeps_nothing_from_the_others(
    server: EmbeddedServer, make_stack: MakeStack, taker: Sink
) -> None:
    """P2, P9: neither the sweep, nor the events, nor the other takers; and it is said."""
    with sink() as hanging:
        hanging.go_on.clear()
        stack = make_stack(server.url, JOBHOOK_ALERT_URLS=f"{hanging.url(TOKEN)}, {taker.url()}")
        stack.start_workers()
        die(stack)
        wait_until(lambda: taker.taken, "the alert", PATIENCE_SECONDS)
        (id,) = queue_events(stack.settings, 1, "test.flaky")  # a retry takes a sweep
        stack.wait_for(id, "done")
        wait_until(lambda: stack.log_lines("alert not sent"), "the failure", PATIENCE_SECONDS)
        assert stack.log_lines("alert not sent")[0]["to"] == "json #1"
        assert "json #1 has taken none since" in stack.jobhook("doctor").stdout
        assert stack.inbox.stats().counts["alerts:failed"] == stack.inbox.stats().counts["alerts:sent"] == 1
        wait_until(lambda: len(hanging.asked) > 1, "another try", PATIENCE_SECONDS)
        assert len(taker.asked) == 1
        assert TOKEN not in stack.logs()


def test_a_test_message_goes_to_every_url_and_says_which_has_failed(
    server: EmbeddedServer, make_stack: MakeStack, taker: Sink
) -> None:
    """P7."""
    with sink() as refusing:
        refusing.status = 403
        stack = make_stack(
            server.url, JOBHOOK_ALERT_URLS=f"{refusing.url(TOKEN)} {taker.url(TOKEN)}", JOBHOOK_LOG_LEVEL="debug"
        )
        tested = stack.jobhook("alerts", "--test")
        assert tested.returncode == 1
        assert sorted(tested.stdout.splitlines()) == ["json #1: failed: HTTP 403", "json #2: sent"]
        assert TOKEN not in tested.stdout + tested.stderr
        assert [len(taker.taken), len(refusing.asked)] == [1, 1]
        results = orjson.loads(stack.jobhook("alerts", "--test", "--json").stdout)
        assert {"destination": "json #2", "failure": None} in results


@pytest.mark.parametrize(("urls", "says"), [("nonsense://x", "nonsense #1 is not understood"), ("x", "is no URL")])
def test_urls_that_cannot_be_used_stop_the_start_with_one_line(
    urls: str, says: str, server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P10."""
    stack = make_stack(server.url, JOBHOOK_ALERT_URLS=urls)
    process = stack.start("workers", "workers")
    assert process.wait(30) == 2
    (line,) = [line for line in stack.logs().splitlines() if "JOBHOOK_ALERT_URLS" in line]
    assert says in line
    assert says in stack.jobhook("doctor").stdout


def test_without_urls_nobody_looks(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    stack.start_workers()
    die(stack)
    assert not stack.redis.exists("jobhook:alerts")
    assert "Nobody is told: JOBHOOK_ALERT_URLS is not set." in stack.jobhook("alerts").stdout
    assert stack.jobhook("alerts", "--test").returncode == 1


def test_a_receiver_tells_that_all_supervisors_are_gone(stack: Stack) -> None:
    """P9."""
    stack.redis.set("jobhook:swept", 1)
    stack.start_receiver()
    wait_until(lambda: "memory" in names(stack), "a look", PATIENCE_SECONDS)
    found = orjson.loads(stack.redis.hget("jobhook:alerts", "memory") or b"")["alerts"]["workers"]
    assert found["text"].startswith("workers: last seen ")
    assert (found["told"], found["patience"]) == (None, 60.0)
