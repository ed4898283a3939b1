"""P6, P9: whatever becomes of the logs, deliveries are answered and handlers finish."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from tests.support import wait_until
from tests.support.stack import KEY, MakeStack, Stack

DELIVERIES = 400
"""Their lines are more than a pipe holds: 64 KiB."""


@contextmanager
def stalled() -> Iterator[int]:
    """A pipe whose reader does not read."""
    reader, writer = os.pipe()
    try:
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


@contextmanager
def abandoned() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


@contextmanager
def full() -> Iterator[int]:
    """A disk that is full."""
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


OUTPUTS = pytest.mark.parametrize("output", [stalled, abandoned, full], ids=lambda output: output.__name__)
Output = Callable[[], AbstractContextManager[int]]


def get(stack: Stack, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{stack.port}{path}", timeout=10)


@OUTPUTS
@pytest.mark.parametrize("processes", ["1", "2"])
def test_deliveries_are_answered(processes: str, output: Output, server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    with output() as stack.output:
        receiver = stack.start_receiver("--processes", processes)
        body = b'{"id":"evt_1","type":"test.ok"}'
        headers = {"X-Signature": sign(KEY.encode(), body)}
        with httpx.Client(timeout=10) as client:
            answers = {client.post(stack.url, content=body, headers=headers).status_code for _ in range(DELIVERIES)}
        assert answers == {200}
        assert get(stack, "/healthz").is_success
        assert get(stack, "/readyz").is_success
        receiver.terminate()
        assert receiver.wait(30) == 0


@OUTPUTS
def test_a_handler_that_prints_finishes(output: Output, server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P5: and is not run again."""
    stack = make_stack(server.url)
    stack.start_receiver()
    with output() as stack.output:
        workers = stack.start_workers(JOBHOOK_HANDLER_TIMEOUT="10s")
        id = stack.deliver_event("test.print", "evt_1")
        record = stack.wait_for(id, "done")
        assert [attempt["outcome"] for attempt in record.attempts] == ["done"]
        assert stack.effects(id) == ["printed"]
        workers.terminate()
        assert workers.wait(30) == 0


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_where_there_is_ascii_only_everything_works(
    variables: dict[str, str], server: EmbeddedServer, make_stack: MakeStack
) -> None:
    stack = make_stack(server.url, **variables)
    stack.start_receiver()
    stack.start_workers()
    stack.wait_for(stack.deliver_event("test.print", "evt_1"), "done")
    assert stack.log_lines("delivery", at_least=1)


def test_that_lines_are_missing_is_told_by_readyz_and_metrics(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)

    def told() -> dict[str, str]:
        problems: dict[str, dict[str, str]] = {
            problem["check"]: problem for problem in get(stack, "/readyz").json()["problems"]
        }
        return problems.get("logs", {})

    with full() as stack.output:
        stack.start_receiver()
        stack.deliver_event("test.ok", "evt_1")
        problem = wait_until(told, "the finding")
        assert problem["level"] == "warn"
        assert problem["finding"].endswith("lines could not be written")
        metrics = get(stack, "/metrics").text.splitlines()
        (line,) = [line for line in metrics if line.startswith("jobhook_log_lines_dropped_total ")]
        assert float(line.split()[1]) > 0
