"""It is an RQ worker: what RQ's users know works; and it loses nothing that RQ's own would."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from rq.command import send_shutdown_command

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.inbox import calls
from tests.support.processes import children, frozen
from tests.support.stack import ROOT, MakeStack, Stack
from workers import presence
from workers import worker as working
from workers.presence import Presence
from workers.processor import Processor
from workers.registry import Registry
from workers.stopping import Stop
from workers.worker import Worker


@pytest.fixture
def inbox_only(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    """Nothing runs but the server."""
    return make_stack(server.url)


def rq(stack: Stack, *arguments: str) -> str:
    """RQ's own command."""
    command = [str(Path(sys.executable).parent / "rq"), *arguments, "--url", stack.redis_url]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def test_rq_info_shows_queue_and_workers(inbox_only: Stack) -> None:
    queue_events(inbox_only.settings, 3)
    assert "jobhook" in rq(inbox_only, "info", "--only-queues", "--raw")
    assert inbox_only.redis.llen("rq:queue:jobhook") == 3
    inbox_only.start_workers()
    wait_until(lambda: inbox_only.inbox.stats().states["done"] == 3, "the events")
    wait_until(lambda: "idle jobhook" in rq(inbox_only, "info", "--only-workers", "--raw"), "an idle worker")


def test_suspended_workers_take_nothing_until_resumed(inbox_only: Stack) -> None:
    inbox_only.start_workers()
    rq(inbox_only, "suspend")
    (id,) = queue_events(inbox_only.settings, 1)
    (worker,) = inbox_only.redis.smembers("rq:workers")
    wait_until(lambda: inbox_only.redis.hget(worker, "state") == b"suspended", "the suspension")
    assert inbox_only.inbox.get(id).state == "queued"
    rq(inbox_only, "resume")
    inbox_only.wait_for(id, "done")


def test_a_worker_whose_supervisor_is_gone_takes_nothing_more(inbox_only: Stack) -> None:
    """Nor one whose supervisor went before it could look: it is told whom to miss."""
    queue_events(inbox_only.settings, 1)
    inbox = working.connect(inbox_only.settings)
    somebody_else = os.getpid()  # not the parent of this process
    known = Presence(presence.entry("orphan", inbox.redis), handler_timeout=1)
    worker = Worker("orphan", inbox, Processor(inbox, Registry()), known, stop=Stop(), supervisor=somebody_else)
    assert worker.run(burst=True) == 0
    assert inbox_only.inbox.stats().states["queued"] == 1
    inbox.redis.close()


def test_rqs_shutdown_command_stops_a_worker(inbox_only: Stack) -> None:
    inbox_only.start_workers()
    (before,) = cast(set[bytes], inbox_only.redis.smembers("rq:workers"))
    wait_until(lambda: inbox_only.redis.hget(before.decode(), "state") == b"idle", "the worker to listen")
    send_shutdown_command(inbox_only.redis, before.decode().removeprefix("rq:worker:"))
    wait_until(lambda: inbox_only.redis.smembers("rq:workers") not in ({before}, set()), "its successor")


def test_the_stock_worker_processes_events_too(inbox_only: Stack) -> None:
    ids = queue_events(inbox_only.settings, 2)
    rq(inbox_only, "worker", "jobhook", "--burst", "--serializer", "rq.serializers.JSONSerializer")
    assert [inbox_only.inbox.get(id).state for id in ids] == ["done", "done"]
    assert inbox_only.redis.keys("rq:job:*") == []


def test_rqs_pool_runs_our_worker(inbox_only: Stack) -> None:
    ids = queue_events(inbox_only.settings, 4)
    rq(inbox_only, "worker-pool", "jobhook", "--burst", "-n", "2", "--worker-class", "workers.worker.JobhookWorker")
    assert {inbox_only.inbox.get(id).state for id in ids} == {"done"}


def test_what_an_event_asks_of_the_server(inbox_only: Stack) -> None:
    """A guard against regressions that no clock can upset: one round trip, and so many commands in it."""
    number = 200
    queue_events(inbox_only.settings, number, "nobody.wants")
    inbox_only.redis.config_resetstat()
    inbox_only.start_workers()
    wait_until(lambda: inbox_only.redis.zcard("jobhook:done") == number, "the events")
    sweeps_and_waits = 40
    per_event = {
        "evalsha": 1,
        "exists": 1,
        "lpop": 1,
        "del": 1,
        "hgetall": 1,
        "expire": 1,
        "hmget": 2,
        "zadd": 2,
        "zrem": 3,
        "hset": 3,
        "hincrby": 3,
    }
    for command, times in per_event.items():
        assert times * number <= calls(inbox_only.redis, command) <= times * number + sweeps_and_waits, command


def test_a_lost_connection_costs_neither_worker_nor_event(inbox_only: Stack) -> None:
    """P2, P5: the end of the attempt is recorded once the server is back."""
    supervisor = inbox_only.start_workers()
    (pid,) = children(supervisor.pid)
    (id,) = queue_events(inbox_only.settings, 1, "test.wait")
    wait_until(lambda: inbox_only.effects(id), "the handler")
    with frozen(pid):
        inbox_only.redis.rpush(f"go:{id}", "go")
        inbox_only.redis.client_kill_filter(_type="normal", skipme=True)
    assert inbox_only.wait_for(id, "done")
    (second,) = queue_events(inbox_only.settings, 1, "test.ok")
    inbox_only.wait_for(second, "done")
    assert children(supervisor.pid) == [pid]


def test_what_a_lost_reply_has_leased_is_given_back(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2: the worker cannot know what it took; it releases it as soon as it is connected again."""
    stack = make_stack(own_server.url)
    stack.start_workers()
    ids = queue_events(stack.settings, 500)
    for _ in range(5):
        stack.redis.client_kill_filter(_type="normal", skipme=True)
    for id in ids:
        stack.wait_for(id, "done")


def test_a_second_sigterm_ends_the_worker_at_once(inbox_only: Stack) -> None:
    supervisor = inbox_only.start_workers()
    (pid,) = children(supervisor.pid)
    (id,) = queue_events(inbox_only.settings, 1, "test.wait")
    wait_until(lambda: inbox_only.effects(id), "the handler")
    supervisor.terminate()
    wait_until(lambda: inbox_only.log_lines("supervisor stopping: workers finish what they have in hand"), "the stop")
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert inbox_only.inbox.get(id).attempts[0]["outcome"] == "crashed"
    assert not Path(f"/proc/{pid}").exists()


def test_a_ctrl_c_in_the_terminal_finishes_the_event_in_hand(inbox_only: Stack) -> None:
    """P2: the terminal sends it to every process of the group."""
    supervisor = inbox_only.start_workers()
    (id,) = queue_events(inbox_only.settings, 1, "test.wait")
    wait_until(lambda: inbox_only.effects(id), "the handler")
    os.killpg(supervisor.pid, signal.SIGINT)
    wait_until(lambda: inbox_only.log_lines("supervisor stopping: workers finish what they have in hand"), "the stop")
    inbox_only.redis.rpush(f"go:{id}", "go")
    assert supervisor.wait(20) == 0
    assert [entry["outcome"] for entry in inbox_only.inbox.get(id).attempts] == ["done"]


def test_a_stop_that_comes_while_workers_start_is_not_lost(inbox_only: Stack) -> None:
    """P2: in the moment between a worker's fork and its being ready."""
    supervisor = inbox_only.start("early", "workers", JOBHOOK_WORKERS="4")
    wait_until(lambda: children(supervisor.pid), "the first fork")
    supervisor.terminate()
    assert supervisor.wait(20) == 0


def test_handlers_that_cannot_be_imported_stop_the_start(inbox_only: Stack) -> None:
    process = inbox_only.start("broken", "workers", JOBHOOK_HANDLERS="no_such_module")
    assert process.wait(20) != 0
    assert "JOBHOOK_HANDLERS: no_such_module cannot be imported" in inbox_only.log_file("broken").read_text()


def test_all_that_a_handler_says_is_a_log_line_with_the_id_of_its_event(stack: Stack) -> None:
    id = stack.deliver_event("test.tell", "evt_1")
    stack.wait_for(id, "done")
    handler = "tests.support.handlers.tell"
    for said in ("logged", "printed", "begun"):
        (line,) = stack.log_lines(said, at_least=1)
        assert (line["id"], line["handler"]) == (id, handler)
    (line,) = stack.log_lines("logged by structlog", at_least=1)
    assert (line["id"], line["event_id"], line["handler"]) == ("its own", id, handler)
    (attempt,) = [line for line in stack.log_lines("attempt", at_least=1) if line["id"] == id]
    assert "handler" not in attempt


def test_a_running_event_says_in_which_handler_it_is(stack: Stack) -> None:
    """Its supervisor does, once it has been in it for a while: short ones pay nothing for that."""
    id = stack.deliver_event("test.async_hang", "evt_1")
    wait_until(lambda: stack.inbox.get(id).handler == "tests.support.handlers.hang_async", "the handler to be noted")
