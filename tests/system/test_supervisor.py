"""A supervisor is never there without doing its work, whatever goes wrong in or around it (P2, P9)."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.processes import children, frozen
from tests.support.stack import ROOT, MakeStack, Stack

STOPPING = "supervisor stopping: workers finish what they have in hand"


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    """Nothing runs but the server."""
    return make_stack(server.url)


@pytest.fixture
def order(tmp_path: Path) -> Path:
    """The file that says what fails in a process with `sabotaged`."""
    return tmp_path / "order"


def sabotaged(order: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT / "tests" / "support" / "sabotage"), "SABOTAGE": str(order)}


def handled(stack: Stack) -> bool:
    """Whether an event that comes now is done."""
    (id,) = queue_events(stack.settings, 1, f"test.ok.{os.urandom(4).hex()}")
    return stack.wait_for(id, "done").state == "done"


def alive(stack: Stack) -> "subprocess.CompletedProcess[str]":
    """What `jobhook alive` says."""
    command = [sys.executable, "-m", "app", "alive"]
    return subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, check=False)


def test_workers_that_cannot_be_forked_are_started_when_they_can_be(stack: Stack, order: Path) -> None:
    """P2, P9: those that run go on, and it is said what is wrong."""
    supervisor = stack.start_workers(2, **sabotaged(order))
    first, second = children(supervisor.pid)
    order.write_text("fork")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(stack.log_lines("supervisor in trouble")) > 1, "the trouble")
    trouble = stack.log_lines("supervisor in trouble")[0]
    assert (trouble["duty"], trouble["reason"]) == ("spawn", "Resource temporarily unavailable")
    assert children(supervisor.pid) == [second]
    assert handled(stack)
    order.unlink()
    wait_until(lambda: len(children(supervisor.pid)) == 2, "the second worker")
    assert handled(stack)
    supervisor.terminate()
    assert supervisor.wait(20) == 0


def test_a_supervisor_that_cannot_fork_at_all_waits_and_can_be_stopped(stack: Stack, order: Path) -> None:
    """P9."""
    order.write_text("fork")
    supervisor = stack.start("workers", "workers", JOBHOOK_WORKERS="2", **sabotaged(order))
    wait_until(lambda: stack.log_lines("supervisor in trouble"), "the trouble")
    order.unlink()
    wait_until(lambda: stack.redis.scard("rq:workers") == 2, "the workers")
    order.write_text("fork")
    for pid in children(supervisor.pid):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not children(supervisor.pid), "the death of all")
    supervisor.terminate()
    assert supervisor.wait(20) == 0


def test_whatever_fails_in_a_tick_is_tried_again_in_the_next(stack: Stack, order: Path) -> None:
    """P9: here, to look after the children, for want of memory."""
    supervisor = stack.start_workers(1, **sabotaged(order))
    order.write_text("waitpid")
    wait_until(lambda: len(stack.log_lines("supervisor in trouble")) > 1, "the trouble")
    assert {(line["duty"], line["error"]) for line in stack.log_lines("supervisor in trouble")} == {
        ("reap", "builtins.MemoryError")
    }
    (id,) = queue_events(stack.settings, 1, "test.flaky")  # a retry takes a sweep
    stack.wait_for(id, "done")
    order.unlink()
    (pid,) = children(supervisor.pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "the next worker")
    assert handled(stack)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGRTMIN + 6, signal.SIGRTMAX])
def test_a_worker_ended_by_any_signal_is_replaced(stack: Stack, number: int) -> None:
    """P2: also by one that Python has no name for."""
    supervisor = stack.start_workers()
    (pid,) = children(supervisor.pid)
    os.kill(pid, number)
    wait_until(lambda: stack.log_lines("worker died"), "its death")
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "its successor")
    assert stack.log_lines("worker died")[0]["reason"] in {"SIGUSR1", f"signal {number}", "SIGRTMAX"}
    assert handled(stack)


def test_what_cannot_go_on_takes_its_workers_along(stack: Stack, order: Path) -> None:
    """P9: it ends at once, and says so by its exit code, so that it is started anew. They finish nothing."""
    supervisor = stack.start_workers(2, **sabotaged(order))
    workers = children(supervisor.pid)
    (id,) = queue_events(stack.settings, 1, "test.wait")
    wait_until(lambda: stack.effects(id), "a worker to be busy")
    order.write_text("recv")
    assert supervisor.wait(20) == 1
    assert stack.log_lines("supervisor cannot go on: its workers are ended")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers to end")
    assert len(stack.effects(id)) == 1


def test_a_stop_ends_an_idle_worker_also_while_redis_is_down(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P9: it has nothing to lose."""
    stack = make_stack(own_server.url)
    supervisor = stack.start_workers(2)
    own_server.kill()
    wait_until(lambda: stack.log_lines("redis does not answer"), "the outage to be noticed")
    supervisor.terminate()
    assert supervisor.wait(20) == 0


def test_a_stop_ends_an_idle_worker_also_while_redis_hangs(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P9: in whatever it waits for an answer."""
    stack = make_stack(own_server.url)
    supervisor = stack.start_workers(2)
    with frozen(own_server.pid):
        wait_until(lambda: stack.log_lines("redis does not answer"), "the outage to be noticed")
        supervisor.terminate()
        assert supervisor.wait(20) == 0


def test_what_a_killed_worker_has_started_ends_with_it(stack: Stack) -> None:
    supervisor = stack.start_workers()
    (id,) = queue_events(stack.settings, 1, "test.leftovers")
    wait_until(lambda: len(stack.effects(id)) == 2, "the handler")
    worker, started = (int(effect.split()[1]) for effect in stack.effects(id))
    assert children(supervisor.pid) == [worker]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{started}").exists(), "the end of what it started")
    stack.redis.rpush(f"go:{id}", "go")


def test_what_a_worker_has_started_ends_with_it_when_its_supervisor_is_gone(stack: Stack) -> None:
    supervisor = stack.start_workers()
    (id,) = queue_events(stack.settings, 1, "test.leftovers")
    wait_until(lambda: len(stack.effects(id)) == 2, "the handler")
    _, started = (int(effect.split()[1]) for effect in stack.effects(id))
    supervisor.kill()
    supervisor.wait()
    stack.redis.rpush(f"go:{id}", "go")
    stack.wait_for(id, "done")
    wait_until(lambda: not Path(f"/proc/{started}").exists(), "the end of what it started")


def test_a_thread_that_never_ends_does_not_keep_a_worker(stack: Stack) -> None:
    """P9: one that has been told to end, and works no more, is no worker."""
    supervisor = stack.start_workers(JOBHOOK_WORKER_MAX_EVENTS="1")
    (pid,) = children(supervisor.pid)
    (id,) = queue_events(stack.settings, 1, "test.thread")
    stack.wait_for(id, "done")
    wait_until(lambda: stack.log_lines("worker killed: it did not end"), "its end")
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "its successor")


def test_an_event_whose_handler_ends_its_process_as_if_all_were_well_is_dead_in_the_end(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P2: an exit code of 0 in the middle of a handler is a crash."""
    stack = make_stack(server.url, JOBHOOK_MAX_ATTEMPTS="2")
    stack.start_workers()
    (id,) = queue_events(stack.settings, 1, "test.quiet_exit")
    assert [entry["outcome"] for entry in stack.wait_for(id, "dead").attempts] == ["crashed", "crashed"]


def test_a_worker_is_replaced_after_so_many_events(stack: Stack) -> None:
    stack.start_workers(JOBHOOK_WORKER_MAX_EVENTS="3")
    ids = queue_events(stack.settings, 7)
    workers = [stack.wait_for(id, "done").worker for id in ids]
    assert sorted(workers.count(worker) for worker in set(workers)) == [1, 3, 3]
    assert not stack.log_lines("worker died")
    assert len(stack.log_lines("worker has done its share")) == 2


def test_a_worker_is_replaced_when_it_has_grown_too_large(stack: Stack) -> None:
    supervisor = stack.start_workers(JOBHOOK_WORKER_MAX_MEMORY="200MiB")
    (pid,) = children(supervisor.pid)
    (id,) = queue_events(stack.settings, 1, "test.grow")
    stack.wait_for(id, "done")
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "its successor")
    assert stack.log_lines("worker has done its share")[0]["bytes"] > 200 * 1024**2
    assert handled(stack)


def test_a_worker_that_is_too_large_from_the_start_works_all_the_same(stack: Stack) -> None:
    """It has handled something before it is replaced: to replace an idle one would go on for ever."""
    supervisor = stack.start_workers(JOBHOOK_WORKER_MAX_MEMORY="1MiB")
    (pid,) = children(supervisor.pid)
    (id,) = queue_events(stack.settings, 1)
    assert stack.wait_for(id, "done").worker
    wait_until(lambda: children(supervisor.pid) not in ([], [pid]), "its successor")
    assert len(stack.log_lines("worker has done its share")) == 1


# --- whether it is alive


def test_alive_is_told_by_the_supervisors_own_tick(stack: Stack) -> None:
    """P9: a frozen one is not alive, though another one sweeps the same inbox."""
    first, _ = stack.start_workers(), stack.start_workers()
    assert alive(stack).returncode == 0
    assert f"supervisor {first.pid}" in alive(stack).stdout
    with frozen(first.pid):
        wait_until(lambda: alive(stack).returncode == 1, "the frozen one to be noticed")
        said = alive(stack).stderr
        assert said.startswith(f"The supervisor with pid {first.pid} has not gone on for ")
        assert said.count("\n") == 1
    wait_until(lambda: alive(stack).returncode == 0, "it to go on")


def test_a_killed_supervisor_is_not_alive_and_its_successor_is(stack: Stack) -> None:
    assert (alive(stack).returncode, alive(stack).stderr.count("\n")) == (1, 1)
    supervisor = stack.start_workers()
    wait_until(lambda: f"supervisor {supervisor.pid}" in alive(stack).stdout, "its pulse")
    supervisor.kill()
    supervisor.wait()
    assert alive(stack).returncode == 1
    wait_until(lambda: not stack.redis.scard("rq:workers"), "its worker to notice")
    successor = stack.start_workers()
    wait_until(lambda: f"supervisor {successor.pid}" in alive(stack).stdout, "its pulse")


def test_alive_does_not_depend_on_redis(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P9: to start the supervisor anew would not help."""
    stack = make_stack(own_server.url)
    supervisor = stack.start_workers()
    with frozen(own_server.pid):
        wait_until(lambda: len(stack.log_lines("redis does not answer")) > 3, "a few ticks")
        assert f"supervisor {supervisor.pid}" in alive(stack).stdout


@contextmanager
def systemd(folder: Path) -> Iterator[socket.socket]:
    """What listens to a service of `Type=notify`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(folder / "notify"))
        listener.settimeout(30)
        yield listener


def test_systemd_is_told_when_it_is_ready_goes_on_and_stops(stack: Stack, tmp_path: Path) -> None:
    with systemd(tmp_path) as listener:
        supervisor = stack.start_workers(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="30000000")
        while listener.recv(99) != b"READY=1":
            pass
        assert listener.recv(99) == listener.recv(99) == b"WATCHDOG=1"
        supervisor.terminate()
        while listener.recv(99) != b"STOPPING=1":
            pass
        assert supervisor.wait(20) == 0
