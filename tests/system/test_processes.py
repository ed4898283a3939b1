"""Several receiver processes under one `jobhook serve`."""

import os
import signal
from pathlib import Path

import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.processes import children
from tests.support.stack import MakeStack, Stack


def ended(pid: int) -> bool:
    """Also a zombie has: it may have nobody who reaps it."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    return make_stack(server.url)


@pytest.mark.parametrize("both_answer", [True, False], ids=["that answer", "that are just starting"])
def test_processes_end_when_their_parent_is_killed_and_free_the_port(both_answer: bool, stack: Stack) -> None:
    """P9: they would go on with keys that may have been taken out, and block the next start."""
    command = ("app", "serve", "--port", str(stack.port), "--processes", "2")
    parent = stack.start("receiver", *command)
    if both_answer:
        wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
    wait_until(lambda: len(children(parent.pid)) == 3, "both processes and multiprocessing's own")
    pids = children(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: all(map(ended, pids)), "their end")
    stack.start_receiver("--processes", "2")
    assert stack.deliver({"id": "evt_1", "type": "test.ok", "data": {}}).status_code == 200


def test_a_process_that_cannot_start_says_so_in_a_line_and_is_started_again(
    own_server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P9: one has to be replaced while the server may evict; nothing is amiss once that is mended."""
    stack = make_stack(own_server.url)
    with Redis.from_url(own_server.url) as redis:
        parent = stack.start_receiver("--processes", "2")
        wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
        redis.config_set("maxmemory-policy", "allkeys-lru")
        os.kill(max(children(parent.pid)), signal.SIGKILL)
        wait_until(lambda: stack.log_lines("cannot start"), "the reason")
        redis.config_set("maxmemory-policy", "noeviction")
        wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 3, "another process")
    assert "noeviction" in stack.log_lines("cannot start")[0]["reason"]
    assert "Traceback" not in stack.logs()
    assert stack.deliver({"id": "evt_1", "type": "test.ok", "data": {}}).status_code == 200
