"""A rolling upgrade: processes of the last version without a schema version, and of this one, on one Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.frozen import thaw, unpack
from tests.support.senders import Persistent
from tests.support.stack import MakeStack, Stack

EVENTS = 10


@contextmanager
def earlier(stack: Stack, folder: Path) -> Iterator[None]:
    """What is started inside is of the earlier version."""
    now, stack.code = stack.code, unpack(folder)
    try:
        yield
    finally:
        stack.code = now


@pytest.mark.parametrize("new", ["receiver", "workers"])
def test_one_side_is_upgraded_before_the_other(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path, new: str
) -> None:
    """P1, P2, P5: whatever the one records, the other works off, once."""
    stack = make_stack(server.url)
    with earlier(stack, tmp_path):
        stack.start_workers() if new == "receiver" else stack.start_receiver()
    stack.start_receiver() if new == "receiver" else stack.start_workers()
    plain = [stack.deliver_event("test.ok", f"evt_{n}") for n in range(EVENTS)]
    flaky = stack.deliver_event("test.flaky", "evt_flaky")
    steps = stack.deliver_event("steps.two", "evt_steps")
    dead = stack.deliver_event("test.permanent", "evt_dead")
    serial = [stack.deliver_event("serial.one", f"evt_serial_{n}") for n in range(3)]
    for id in [*plain, flaky, steps, *serial]:
        stack.wait_for(id, "done")
    assert stack.wait_for(dead, "dead").attempts[-1]["error"]["type"] == "workers.retry.Permanent"
    assert all(stack.effects(id) == stack.effects(plain[0]) for id in plain)
    assert len(stack.inbox.get(flaky).attempts) == 2


def test_workers_of_both_versions_share_the_work(server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path) -> None:
    """P5: each event once, whichever takes it; and each sweep may be either's."""
    stack = make_stack(server.url)
    with earlier(stack, tmp_path):
        stack.start_workers()
    stack.start_workers()
    stack.start_receiver()
    ids = [stack.deliver_event("test.ok", f"evt_{n}") for n in range(3 * EVENTS)]
    flaky = [stack.deliver_event("test.flaky", f"evt_flaky_{n}") for n in range(4)]
    for id in [*ids, *flaky]:
        stack.wait_for(id, "done")
    assert all(stack.effects(id) == stack.effects(ids[0]) for id in ids)


def test_what_the_last_version_left_is_worked_off(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2, P5: a handler that has finished does not run again, though the code lies elsewhere now."""
    stack = make_stack(server.url)
    ids = thaw(stack.redis)
    for name in ("running", "retrying", "in-line"):
        state = stack.inbox.get(ids[name]).state
        stack.redis.zadd(f"jobhook:{state}", {ids[name]: 1}, xx=True)
    stack.start_workers()
    for name, id in ids.items():
        stack.wait_for(id, "dead" if name == "dead" else "done")
    assert stack.effects(ids["retrying"]) == ["flaky 2"]  # and not "first", which is noted by the one that has finished
    wait_until(lambda: stack.redis.zcard("jobhook:open") == 0, "the index of what is open")


VARIANTS = {
    "event id": b'{"id":"evt_1","type":"test.ok","data":{"n":1}}',
    "no event id": b'{"type": "test.ok", "n": 1}',
    "no JSON": b"status=paid",
}


@pytest.mark.parametrize("body", VARIANTS.values(), ids=VARIANTS)
def test_a_delivery_that_arrives_at_receivers_of_both_versions_is_one_event(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path, body: bytes
) -> None:
    """P4: whichever comes first; and again after it is done."""
    old, new = make_stack(server.url), make_stack(server.url)
    with earlier(old, tmp_path):
        old.start_receiver()
    new.start_receiver()
    for first, second in ((old, new), (new, old)):
        new.redis.flushall()
        accepted = first.deliver(body).json()
        assert accepted["status"] == "accepted"
        assert second.deliver(body).json()["status"] == "duplicate"
        assert first.deliver(body).json() == {"status": "duplicate", "id": accepted["id"]}
        assert new.redis.llen("rq:queue:jobhook") == new.inbox.stats().states["queued"] == 1


def test_an_upgrade_one_by_one_under_load_refuses_and_repeats_nothing(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    """P1, P2, P5: two receivers and two supervisors of the earlier version, each replaced while deliveries come."""
    first, second = make_stack(server.url), make_stack(server.url)
    receivers, workers = [], []
    for stack in (first, second):
        with earlier(stack, tmp_path):
            receivers.append(stack.start_receiver())
            workers.append(stack.start_workers())
    urls = [first.url, second.url]
    with Persistent(lambda: list(urls)) as sender:
        for stack, receiver in zip((first, second), receivers, strict=True):
            urls.remove(stack.url)  # as a load balancer does
            receiver.terminate()
            assert receiver.wait(30) == 0
            stack.start_receiver()
            urls.append(stack.url)
            sender.wait_for_some()
        for stack, supervisor in zip((first, second), workers, strict=True):
            supervisor.terminate()
            assert supervisor.wait(30) == 0
            stack.start_workers()
            sender.wait_for_some()
    for id in sender.ids:
        first.wait_for(id, "done")
    assert {id: effects for id in sender.ids if len(effects := first.effects(id)) != 1} == {}
