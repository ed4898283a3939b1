"""P9: which supervisors are at work is told by name, as real processes come, hang and go."""

import os
import signal
import socket
from typing import Any

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.ops import health
from app.ops.health import check
from tests.support import wait_until
from tests.support.processes import frozen
from tests.support.stack import MakeStack, Stack


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    return make_stack(server.url)


def missed(stack: Stack) -> list[str]:
    return [
        finding.finding.split()[0] for finding in check(stack.settings, stack.redis) if finding.name == "supervisors"
    ]


def test_one_that_hangs_is_missed_beside_one_that_is_well(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WORKERS_SEEN_WITHIN_SECONDS", 3.0)
    hanging, well = stack.start_workers(), stack.start_workers()
    host = socket.gethostname()
    wait_until(lambda: len(stack.inbox.stats().supervisors) == 2, "both")
    with frozen(hanging.pid):
        wait_until(lambda: missed(stack) == [f"{host}:{hanging.pid}"], "the finding")
    wait_until(lambda: missed(stack) == [], "its return")
    os.kill(well.pid, signal.SIGKILL)
    well.wait()
    wait_until(lambda: missed(stack) == [f"{host}:{well.pid}"], "the finding")
    wait_until(lambda: stack.redis.scard("rq:workers") == 1, "the end of its worker")
    successor = stack.start_workers()
    names = {f"{host}:{hanging.pid}", f"{host}:{successor.pid}"}
    wait_until(lambda: stack.inbox.stats().supervisors.keys() == names, "the successor")
    hanging.terminate()
    successor.terminate()
    assert hanging.wait(30) == successor.wait(30) == 0
    assert stack.inbox.stats().supervisors == {}


def test_readyz_tells_of_a_suspension(stack: Stack) -> None:
    stack.start_receiver()
    stack.start_workers()

    def told() -> dict[str, Any]:
        answer = httpx.get(f"http://127.0.0.1:{stack.port}/readyz", timeout=10)
        assert answer.status_code == 200  # deliveries are recorded all the same
        return {problem["check"]: problem for problem in answer.json()["problems"]}

    wait_until(lambda: told() == {}, "the first sweep")
    stack.redis.set("rq:suspended", 1)
    assert "rq resume" in told()["suspended"]["remedy"]
