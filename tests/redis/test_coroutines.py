"""Async handlers: what becomes of what they start, and of them when their time is up."""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar

import pytest
import structlog

from app.config.settings import Settings
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import take
from workers import Event, Permanent
from workers.processor import Processor
from workers.registry import Registry

SHORT_SECONDS = 0.1
"""A time limit that is meant to be reached."""
LONG_SECONDS = 3600.0

Run = Callable[..., Record]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def run(inbox: Inbox, settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Has one event tried once, always by the same processor."""
    monkeypatch.setattr("workers.coroutines.CANCEL_SECONDS", 0.2)
    monkeypatch.setattr("workers.timelimit.INSIST_SECONDS", 0.2)
    numbers = iter(range(1000))
    processors: list[Processor] = []

    def once(**overrides: object) -> Record:
        inbox.settings = settings.model_copy(update=overrides)
        if not processors or overrides:
            processors.append(Processor(inbox, registry))
        accept_all(settings, delivery(b'{"type":"test.ok","n":%d}' % next(numbers)))
        record = take(inbox)
        ended = processors[-1].process(record)
        assert ended
        inbox.work("w", ended, want="")
        return inbox.get(record.id)

    yield once
    for processor in processors:
        processor.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names


def test_a_time_out_cancels_the_handler_and_lets_it_clean_up(run: Run, registry: Registry) -> None:
    cleaned: list[str] = []

    @registry.on("*")
    async def hang(_: Event) -> None:
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("handler")

    record = run(handler_timeout=SHORT_SECONDS)
    assert cleaned == ["handler"]
    assert record.attempts[0]["error"]["type"] == "workers.timelimit.HandlerTimeout"


def test_the_same_loop_goes_on_after_a_time_out(run: Run, registry: Registry) -> None:
    loops: list[object] = []

    @registry.on("*")
    async def hang_once(_: Event) -> None:
        loops.append(asyncio.get_running_loop())
        if len(loops) == 1:
            await asyncio.sleep(LONG_SECONDS)

    assert run(handler_timeout=SHORT_SECONDS).state == "retrying"
    assert run().state == "done"
    assert loops[0] is loops[1]


@pytest.mark.parametrize("swallows", [1, 10**6], ids=["once", "for ever"])
def test_a_handler_that_swallows_its_cancellation_ends_all_the_same(
    run: Run, registry: Registry, swallows: int
) -> None:
    """P2: and nothing of its loop is left."""
    swallowed: list[BaseException] = []

    @registry.on("*")
    async def stubborn(_: Event) -> None:
        while len(swallowed) <= swallows:
            try:
                await asyncio.sleep(LONG_SECONDS)
            except asyncio.CancelledError as error:
                swallowed.append(error)

    before = descriptors()
    for _ in range(3):
        swallowed.clear()
        assert run(handler_timeout=SHORT_SECONDS).state == "retrying"
    gc.collect()
    assert descriptors() <= before + 3  # the loop in use


def test_a_handler_that_blocks_its_loop_is_interrupted(run: Run, registry: Registry) -> None:
    @registry.on("*")
    async def block(_: Event) -> None:
        while True:
            time.monotonic()

    record = run(handler_timeout=SHORT_SECONDS)
    assert "HandlerTimeout" in record.attempts[0]["error"]["type"]


def test_a_time_out_inside_a_task_group_is_a_time_out(run: Run, registry: Registry) -> None:
    """Its strike comes wrapped in a group; the handlers after it have no time left."""
    ran: list[str] = []

    async def block() -> None:
        while True:
            time.monotonic()

    @registry.on("*")
    async def first(_: Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(block())

    @registry.on("*")
    def second(_: Event) -> None:
        ran.append("second")

    assert run(handler_timeout=SHORT_SECONDS).state == "retrying"
    assert ran == []


def test_tasks_left_behind_are_waited_for(run: Run, registry: Registry) -> None:
    """P2: the event is not done before they are."""
    sent: list[str] = []

    async def send() -> None:
        await asyncio.sleep(0.02)
        asyncio.create_task(log())  # noqa: RUF006 - left behind on purpose, as all here

    async def log() -> None:
        await asyncio.sleep(0.02)
        sent.append("sent")

    @registry.on("*")
    async def forget(_: Event) -> None:
        asyncio.create_task(send())  # noqa: RUF006

    assert run().state == "done"
    assert sent == ["sent"]


@pytest.mark.parametrize("seconds", [0, 0.02], ids=["before the handler has ended", "after it"])
def test_what_a_task_left_behind_raises_is_a_failure_of_its_handler(
    run: Run, registry: Registry, seconds: float
) -> None:
    kept: list[object] = []

    async def fail() -> None:
        await asyncio.sleep(seconds)
        raise Permanent("no use")

    @registry.on("*")
    async def forget(_: Event) -> None:
        kept.append(asyncio.create_task(fail()))
        await asyncio.sleep(0.01)

    record = run()
    assert record.state == "dead"
    assert record.attempts[0]["error"]["type"] == "workers.retry.Permanent"
    registry.handlers.clear()
    assert run().state == "done"


def test_a_failure_that_the_handler_has_seen_is_no_failure(run: Run, registry: Registry) -> None:
    async def fail() -> None:
        raise ValueError

    @registry.on("*")
    async def careful(_: Event) -> None:
        results = await asyncio.gather(fail(), fail(), return_exceptions=True)
        assert len(results) == 2
        task = asyncio.create_task(fail())
        with pytest.raises(ValueError):  # noqa: PT011
            await task

    assert run().state == "done"


def test_tasks_left_behind_by_a_handler_that_fails_are_cancelled(run: Run, registry: Registry) -> None:
    cleaned: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(LONG_SECONDS)
        finally:
            cleaned.append("task")

    @registry.on("*")
    async def fail(_: Event) -> None:
        asyncio.create_task(hang())  # noqa: RUF006
        await asyncio.sleep(0)
        raise ValueError

    record = run()
    assert record.attempts[0]["error"]["type"] == "builtins.ValueError"
    assert cleaned == ["task"]


def test_a_task_left_behind_that_does_not_end_is_a_time_out(run: Run, registry: Registry) -> None:
    @registry.on("*")
    async def forget(_: Event) -> None:
        asyncio.create_task(asyncio.sleep(LONG_SECONDS))  # noqa: RUF006

    record = run(handler_timeout=SHORT_SECONDS)
    assert "left behind" in record.attempts[0]["error"]["message"]


def test_an_async_generator_left_behind_is_closed(run: Run, registry: Registry) -> None:
    closed: list[str] = []
    kept: list[object] = []

    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("rows")

    @registry.on("*")
    async def read_one(_: Event) -> None:
        generator = rows()
        kept.append(generator)
        async for _row in generator:
            break

    for number in range(1, 3):
        assert run().state == "done"
        assert closed == ["rows"] * number


def test_tasks_know_the_context_of_their_handler(run: Run, registry: Registry) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    seen: list[str] = []

    async def look() -> None:
        seen.append(tenant.get())

    @registry.on("*")
    async def handle(_: Event) -> None:
        tenant.set("acme")
        asyncio.create_task(look())  # noqa: RUF006
        await asyncio.to_thread(lambda: seen.append(tenant.get()))

    run()
    assert seen == ["acme", "acme"]


def test_a_handler_that_leaves_python_is_a_failure(run: Run, registry: Registry) -> None:
    """P2: and the next one finds a loop that works."""
    codes: list[int] = []

    @registry.on("*")
    async def leave_once(_: Event) -> None:
        codes.append(1)
        if len(codes) == 1:
            raise SystemExit(1)

    assert run().state == "retrying"
    assert run().state == "done"


def test_a_coroutine_that_returns_another_runs_both(run: Run, registry: Registry) -> None:
    """P2: who forgets an `await` at the end means it."""
    ran: list[str] = []

    async def inner() -> None:
        ran.append("inner")

    @registry.on("*")  # type: ignore[type-var]
    async def outer(_: Event) -> object:
        return inner()

    assert run().state == "done"
    assert ran == ["inner"]


def test_what_the_loop_complains_of_is_logged_without_a_word_of_it(run: Run, registry: Registry) -> None:
    """P7."""

    def fail(text: str) -> None:
        raise ValueError(text)

    @registry.on("*")
    async def schedule(_: Event) -> None:
        asyncio.get_running_loop().call_soon(fail, "canary")
        await asyncio.sleep(0)

    with structlog.testing.capture_logs() as logs:
        assert run().state == "done"
    assert ("error in the event loop", "builtins.ValueError") in [(line["event"], line.get("error")) for line in logs]
    assert "canary" not in str(logs)


def test_loops_and_their_descriptors_do_not_add_up(run: Run, registry: Registry) -> None:
    @registry.on("*")
    async def hang(_: Event) -> None:
        await asyncio.sleep(LONG_SECONDS)

    run(handler_timeout=SHORT_SECONDS)
    before = descriptors()
    for _ in range(5):
        run()
    assert descriptors() == before


def test_after_a_time_out_other_connections_in_use_are_left_alone(run: Run, registry: Registry, inbox: Inbox) -> None:
    """The thread in which RQ listens for commands has one; cut, it said that Redis could not be connected to."""
    listening = inbox.redis.connection_pool.get_connection()

    @registry.on("*")
    def hang(_: Event) -> None:
        while True:
            time.monotonic()

    run(handler_timeout=SHORT_SECONDS)
    assert listening.is_connected
    inbox.redis.connection_pool.release(listening)
