"""How RQ knows our workers: as well as Redis lets us, and as no condition for work (P2, P9)."""

import os
import signal

import pytest
from rq.command import send_command, send_shutdown_command

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.inbox import calls
from tests.support.processes import children
from tests.support.stack import MakeStack, Stack

MEMORY_LEFT_BYTES = 4096


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    """Nothing runs but the server."""
    return make_stack(server.url)


def registered(stack: Stack) -> set[bytes]:
    with stack.redis.pipeline() as pipeline:  # both at the same moment
        pipeline.smembers("rq:workers")
        pipeline.smembers("rq:workers:jobhook")
        members, of_queue = pipeline.execute()
    assert members == of_queue
    return set(members)


def test_a_full_redis_is_worked_off(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2: by workers that start while it is full; to make room is what they are for."""
    stack = make_stack(own_server.url)
    ids = queue_events(stack.settings, 50, "nobody.wants")
    stack.redis.config_set("maxmemory", 1)
    stack.start("workers", "workers", JOBHOOK_WORKERS="2")
    for id in ids:
        stack.wait_for(id, "done")
    assert not stack.log_lines("worker died")
    assert stack.redis.scard("rq:workers") == 0
    stack.redis.config_set("maxmemory", 0)
    wait_until(lambda: stack.redis.scard("rq:workers") == 2, "them to be registered")


def test_an_idle_worker_stays_known(stack: Stack) -> None:
    """Its entry is written anew if it has expired, all of it, and never without an end."""
    stack.start_workers()
    (worker,) = registered(stack)
    wait_until(lambda: stack.redis.hget(worker, "state") == b"idle", "it to be idle")
    fields = set(stack.redis.hkeys(worker))
    assert {b"hostname", b"pid", b"ip_address", b"birth", b"last_heartbeat", b"queues", b"version"} <= fields
    assert stack.redis.ttl(worker) > 0
    before = stack.redis.hget(worker, "last_heartbeat")
    wait_until(lambda: stack.redis.hget(worker, "last_heartbeat") != before, "the next beat")
    stack.redis.delete(worker, "rq:workers", "rq:workers:jobhook")
    wait_until(lambda: stack.redis.exists(worker), "it to be there again")
    assert set(stack.redis.hkeys(worker)) == fields
    assert stack.redis.ttl(worker) > 0
    assert registered(stack) == {worker}


def test_killed_workers_leave_no_ghosts(stack: Stack) -> None:
    supervisor = stack.start_workers(2)
    for _ in range(5):
        killed = kill_all(stack, supervisor.pid)
        wait_until(lambda killed=killed: not killed & registered(stack), "them to be taken out")  # type: ignore[misc]
    assert all(stack.redis.ttl(key) > 0 for key in stack.redis.scan_iter("rq:worker:*"))


def kill_all(stack: Stack, supervisor: int) -> set[bytes]:
    """Kills the workers as soon as both are registered; their keys."""
    keys = wait_until(lambda: both if len(both := registered(stack)) == 2 else None, "two workers")
    for pid in children(supervisor):
        os.kill(pid, signal.SIGKILL)
    return keys or set()


def test_workers_that_end_take_leave(stack: Stack) -> None:
    supervisor = stack.start_workers(3)
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert registered(stack) == set()
    assert stack.redis.keys("rq:worker:*") == []


@pytest.mark.parametrize("payload", [b"no JSON", b"{}", b'{"command":"stop-job","job_id":"x"}'])
def test_a_command_that_is_none_does_no_harm(stack: Stack, payload: bytes) -> None:
    supervisor = stack.start_workers()
    (worker,) = registered(stack)
    (pid,) = children(supervisor.pid)
    channel = b"rq:pubsub:" + worker.removeprefix(b"rq:worker:")
    wait_until(lambda: stack.redis.pubsub_numsub(channel)[0][1], "it to listen")
    stack.redis.publish(channel, payload)
    send_command(stack.redis, worker.decode().removeprefix("rq:worker:"), "kill-horse")
    (id,) = queue_events(stack.settings, 1)
    stack.wait_for(id, "done")
    assert children(supervisor.pid) == [pid]
    wait_until(lambda: stack.redis.pubsub_numsub(channel)[0][1], "it to listen still")
    send_shutdown_command(stack.redis, worker.decode().removeprefix("rq:worker:"))
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "its successor")


def test_an_event_wakes_one_worker(stack: Stack) -> None:
    """And costs a few commands, however many workers there are."""
    workers, events = 12, 20
    stack.start_workers(workers)
    wait_until(
        lambda: sum(client["cmd"].lower() == "blpop" for client in stack.redis.client_list()) == workers, "all to wait"
    )
    stack.redis.config_resetstat()
    for n in range(events):
        (id,) = queue_events(stack.settings, 1, f"nobody.wants{n}")
        stack.wait_for(id, "done")
    assert calls(stack.redis, "evalsha") <= 6 * events
    assert calls(stack.redis, "hset") <= 8 * events


def test_as_many_workers_as_there_are_events_are_woken(stack: Stack) -> None:
    """P2: by one delivery of several; each that takes one wakes the next."""
    workers = 4
    stack.start_workers(workers)
    ids = queue_events(stack.settings, workers, "test.wait")
    wait_until(lambda: all(stack.effects(id) for id in ids), "all to run at once")
    for id in ids:
        stack.redis.rpush(f"go:{id}", "go")
    for id in ids:
        stack.wait_for(id, "done")


def test_a_token_that_was_lost_delays_nothing_for_long(stack: Stack) -> None:
    """P2: the next sweep makes another."""
    stack.start_workers()
    wait_until(lambda: any(client["cmd"].lower() == "blpop" for client in stack.redis.client_list()), "it to wait")
    stack.redis.lpush("rq:queue:jobhook", "nonsense")
    wait_until(lambda: stack.redis.llen("rq:queue:jobhook") == 0, "it to look")


def test_an_error_of_a_script_is_told_as_one(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2, P9: it is not that Redis is away."""
    stack = make_stack(own_server.url)
    supervisor = stack.start_workers()
    pids = children(supervisor.pid)
    stack.redis.execute_command("ACL SETUSER default -evalsha")  # type: ignore[no-untyped-call]
    wait_until(lambda: stack.log_lines("redis answers with an error"), "the error")
    assert {line["level"] for line in stack.log_lines("redis answers with an error")} == {"error"}
    stack.redis.execute_command("ACL SETUSER default +evalsha")  # type: ignore[no-untyped-call]
    (id,) = queue_events(stack.settings, 1)
    stack.wait_for(id, "done")
    assert children(supervisor.pid) == pids


def test_a_record_that_cannot_be_read_kills_no_worker(stack: Stack) -> None:
    """P2: it is set aside and said."""
    supervisor = stack.start_workers()
    pids = children(supervisor.pid)
    spoiled = "f" * 32
    stack.redis.hset(f"jobhook:event:{spoiled}", mapping={"state": "queued", "received": 1, "meta": "[]", "body": "x"})
    stack.redis.rpush("rq:queue:jobhook", spoiled)
    wait_until(lambda: stack.inbox.broken() == [spoiled], "it to be set aside")
    wait_until(lambda: stack.log_lines("event set aside"), "the line")
    (id,) = queue_events(stack.settings, 1)
    stack.wait_for(id, "done")
    assert children(supervisor.pid) == pids
