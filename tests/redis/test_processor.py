"""One event's handlers: what is recorded of each way in which they can end."""

import asyncio
import functools
import io
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import replace

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer
from structlog.testing import capture_logs

from app.config.settings import Settings
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox
from app.inbox.record import Ended, Record
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import take
from workers import AsyncJobsiteOn, Event, JobsiteOn, Permanent, RetryAfter
from workers.event import LeaseLost
from workers.history import MOST_TRACEBACKS
from workers.processor import Processor
from workers.registry import Registry

Run = Callable[..., tuple[Ended, Record]]


def process_now(processor: Processor, record: Record) -> Ended:
    """Processes an event that has to wait for nobody."""
    ended = processor.process(record)
    assert ended
    return ended


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def run(inbox: Inbox, settings: Settings, registry: Registry) -> Run:
    """Processes one event of type test.ok and records its end."""

    def once(**overrides: object) -> tuple[Ended, Record]:
        inbox.settings = settings.model_copy(update=overrides)
        accept_all(settings, delivery(b'{"type":"test.ok"}'))
        record = take(inbox)
        ended = process_now(Processor(inbox, registry), record)
        inbox.work("w", ended, want="")
        return ended, inbox.get(record.id)

    return once


def test_an_event_that_nobody_wants_is_done_and_counted(run: Run, inbox: Inbox) -> None:
    ended, record = run()
    assert (ended.outcome, ended.unhandled, record.state) == ("done", True, "done")
    assert inbox.stats().counts["events:unhandled"] == 1


def test_a_handler_sees_the_event(run: Run, registry: Registry) -> None:
    seen: list[Event] = []
    registry.on("*")(seen.append)
    _, record = run()
    (event,) = seen
    assert (event.id, event.type, event.body) == (record.id, "test.ok", b'{"type":"test.ok"}')
    assert event.payload == event.data == {"type": "test.ok"}
    assert event.received_at.timestamp() == record.received
    assert (event.attempt, event.resource, event.occurred_at, event.is_conflict) == (1, None, None, False)
    assert "{" not in repr(event)


def test_a_handler_sees_of_which_event_a_conflict_is_one(registry: Registry, inbox: Inbox, settings: Settings) -> None:
    """P4."""
    seen: list[Event] = []
    registry.on("*")(seen.append)
    first, conflict = accept_all(settings, delivery(b'{"n":1}', "evt_1"), delivery(b'{"n":2}', "evt_1"))
    for _ in range(2):
        Processor(inbox, registry).process(take(inbox))
    found = {event.id: (event.is_conflict, event.conflict_of) for event in seen}
    assert found == {first.id: (False, None), conflict.id: (True, first.id)}


@pytest.mark.parametrize("error", [ValueError("why"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_whatever_a_handler_raises_is_a_failed_attempt(run: Run, registry: Registry, error: BaseException) -> None:
    """P2: a handler's sys.exit() ends the handler, not the worker."""

    @registry.on("*")
    def fail(_: Event) -> None:
        raise error

    ended, record = run()
    assert (ended.outcome, record.state) == ("retry", "retrying")
    assert record.attempts[0]["error"]["type"].endswith(type(error).__name__)
    assert "in fail" in record.attempts[0]["error"]["traceback"]


def test_an_async_handler_runs_and_fails_like_any_other(run: Run, registry: Registry) -> None:
    @registry.on("*")
    async def fail(_: Event) -> None:
        await asyncio.sleep(0)
        raise ValueError

    assert run()[0].outcome == "retry"


@pytest.mark.parametrize(
    ("error", "outcome", "delay"),
    [(Permanent("no"), "dead", 0), (RetryAfter(7), "retry", 7), (RetryAfter(0), "retry", 0)],
)
def test_a_handler_steers_the_retry(run: Run, registry: Registry, error: Exception, outcome: str, delay: float) -> None:
    @registry.on("*")
    def fail(_: Event) -> None:
        raise error

    ended, _ = run()
    assert (ended.outcome, ended.delay) == (outcome, delay)


def test_the_last_attempt_is_the_last(run: Run, registry: Registry) -> None:
    """P2."""

    @registry.on("*")
    def fail(_: Event) -> None:
        raise RetryAfter(1)

    assert run(max_attempts=1)[1].state == "dead"


@pytest.mark.parametrize("share", [-0.1, 0.9], ids=["it ran out", "it is shorter than the handler timeout"])
def test_an_event_whose_lease_is_too_short_to_begin_it_is_left_alone(
    share: float, inbox: Inbox, settings: Settings, registry: Registry
) -> None:
    """P5: the process stood still, so another worker may have it by now, or may get it before the timeout."""
    seen: list[Event] = []
    registry.on("*")(seen.append)
    accept_all(settings, delivery(b"{}"))
    before = time.monotonic()
    record = take(inbox)
    lease, left = settings.handler_timeout + LEASE_MARGIN_SECONDS, share * settings.handler_timeout
    assert before + lease <= record.leased_until <= time.monotonic() + lease
    ended = process_now(Processor(inbox, registry), replace(record, leased_until=time.monotonic() + left))
    assert (ended.outcome, ended.delay, ended.uncounted) == ("retry", 0, True)
    assert seen == []


def test_every_handler_has_its_turn_and_only_the_failed_one_runs_again(
    inbox: Inbox, settings: Settings, registry: Registry
) -> None:
    """P5."""
    ran: list[str] = []

    @registry.on("*")
    def first(_: Event) -> None:
        ran.append("first")

    @registry.on("*")
    def second(event: Event) -> None:
        ran.append("second")
        if event.attempt == 1:
            raise RetryAfter(0)

    @registry.on("*")
    async def third(_: Event) -> None:
        ran.append("third")

    accept_all(settings, delivery(b"{}"))
    processor = Processor(inbox, registry)
    for _ in range(2):
        inbox.work("w", processor.process(take(inbox)), want="")
        inbox.redis.delete("jobhook:swept")
        inbox.sweep()
    processor.close()
    assert ran == ["first", "second", "third", "second"]
    assert inbox.stats().states["done"] == 1


def test_the_timeout_strikes_until_the_handler_ends(
    run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: though it swallows the first strike."""
    monkeypatch.setattr("workers.timelimit.INSIST_SECONDS", 0.05)
    struck: list[str] = []

    @registry.on("*")
    def hang(_: Event) -> None:
        while True:
            try:
                while True:
                    time.monotonic()
            except BaseException as error:
                struck.append(type(error).__name__)
                if len(struck) == 2:
                    raise

    ended, record = run(handler_timeout=0.1)
    assert struck == ["HandlerTimeout"] * 2
    assert ended.outcome == "retry"
    assert "0.1 s" in record.attempts[0]["error"]["message"]


def test_a_new_event_loop_follows_one_that_was_interrupted(
    inbox: Inbox, settings: Settings, registry: Registry
) -> None:
    @registry.on("*")
    async def hang_once(event: Event) -> None:
        if event.attempt == 1:
            while True:  # noqa: ASYNC110 - it hangs on purpose
                await asyncio.sleep(0)

    inbox.settings = settings.model_copy(update={"handler_timeout": 0.1})
    accept_all(settings, delivery(b"{}"))
    processor = Processor(inbox, registry)
    assert process_now(processor, take(inbox)).outcome == "retry"
    record = inbox.get(next(inbox.newest()).id)
    assert process_now(processor, replace(record, attempt=2)).outcome == "done"
    processor.close()


def test_what_is_kept_of_an_error_is_bounded(run: Run, registry: Registry) -> None:
    @registry.on("*")
    def fail(_: Event) -> None:
        raise ValueError("\ud800" + "x" * 100_000)

    error = run()[1].attempts[0]["error"]
    assert len(error["message"]) <= 1000
    assert len(error["traceback"]) <= 8000


def test_a_stock_rq_worker_can_run_the_job(inbox: Inbox, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's function, called by its name as RQ does; a second call finds nothing to do."""
    monkeypatch.setenv("JOBSITEON_API_KEY", settings.api_key.get_secret_value())
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("JOBHOOK_HANDLERS", "tests.support.handlers")
    (receipt,) = accept_all(settings, delivery(b'{"type":"test.ok"}'))
    job = Job.fetch(receipt.id, connection=inbox.redis, serializer=JSONSerializer)
    for _ in range(2):
        job.perform()
    record = inbox.get(receipt.id)
    assert (record.state, record.token) == ("done", 1)
    assert re.fullmatch(r".+-\d+", record.worker or "")
    assert "tests.support.handlers" in sys.modules


def test_an_async_handler_behind_a_plain_decorator_is_awaited(run: Run, registry: Registry) -> None:
    """P2: else it would count as done without having run."""
    ran: list[str] = []

    async def inner(_: Event) -> None:
        await asyncio.sleep(0)
        ran.append("inner")

    @registry.on("*")  # type: ignore[type-var]  # mypy takes the wrapper for what it wraps
    @functools.wraps(inner)
    def outer(event: Event) -> object:
        return inner(event)

    assert run()[0].outcome == "done"
    assert ran == ["inner"]


def test_an_exception_that_cannot_even_be_printed_is_a_failed_attempt(run: Run, registry: Registry) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise TypeError

    @registry.on("*")
    def fail(_: Event) -> None:
        raise Unprintable

    assert run()[0].outcome == "retry"


class Owner:
    async def __call__(self, event: Event) -> None:
        """Is called."""


@pytest.mark.parametrize(
    "result",
    [
        (n for n in "ab"),
        map(str, "ab"),
        filter(None, "ab"),
        Owner().__call__,
        lambda: None,
        functools.partial(print),
        print,
    ],
    ids=["generator", "map", "filter", "method", "function", "partial", "builtin"],
)
def test_what_a_handler_returns_instead_of_running_it_fails_it(run: Run, registry: Registry, result: object) -> None:
    """P2: else it would count as done without having run."""
    registry.on("*")(lambda _: result)  # type: ignore[type-var]
    ended, record = run()
    assert ended.outcome == "retry"
    assert "nothing of it has been run" in record.attempts[0]["error"]["message"]


def test_an_async_generator_that_is_returned_fails_its_handler(run: Run, registry: Registry) -> None:
    async def lazy() -> AsyncIterator[int]:
        yield 1

    registry.on("*")(lambda _: lazy())  # type: ignore[type-var]
    assert run()[0].outcome == "retry"


@pytest.mark.parametrize("result", [None, 0, "sent", {"id": 1}, [1], (), object(), Owner, io.BytesIO()])
def test_a_mere_value_may_be_returned(run: Run, registry: Registry, result: object) -> None:
    """To fail would repeat what has been done."""
    registry.on("*")(lambda _: result)  # type: ignore[type-var]
    assert run()[0].outcome == "done"


def test_a_handler_is_given_what_it_needs(run: Run, registry: Registry) -> None:
    given: list[object] = []

    @registry.on("*")
    def book(event: Event, client: JobsiteOn, retries: int = 3, *, other: AsyncJobsiteOn, more: str = "x") -> None:
        given.extend((client, retries, other, more))

    assert run()[0].outcome == "done"
    assert list(map(type, given)) == [JobsiteOn, int, AsyncJobsiteOn, str]


def test_what_a_handler_sets_in_its_context_ends_with_it(run: Run, registry: Registry) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    seen: list[str] = []

    @registry.on("*")
    def first(_: Event) -> None:
        seen.append(tenant.get())
        tenant.set("first")

    @registry.on("*")
    async def second(_: Event) -> None:
        seen.append(tenant.get())
        tenant.set("second")

    run()
    assert seen == ["nobody", "nobody"]
    assert tenant.get() == "nobody"


def test_a_step_that_comes_too_late_in_a_group_ends_the_attempt(run: Run, registry: Registry) -> None:
    """P5: the event is somebody else's by now, so the handlers after it are theirs to run."""
    ran: list[str] = []

    @registry.on("*")
    def late(_: Event) -> None:
        raise ExceptionGroup("", [LeaseLost()])

    @registry.on("*")
    def after(_: Event) -> None:
        ran.append("after")

    run()
    assert ran == []


def test_the_log_names_each_handler_that_has_failed_and_where_in_its_own_code(run: Run, registry: Registry) -> None:
    """P7: without what the errors say."""

    @registry.on("*", name="first")
    def first(_: Event) -> None:
        json.loads("canary")

    @registry.on("*", name="second")
    async def second(_: Event) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.wait_for(asyncio.sleep(9), timeout=0))

    with capture_logs() as logs:
        _, record = run()
    (line,) = [line for line in logs if line["event"] == "attempt"]
    assert (line["handler"], line["error"]) == ("first", "json.decoder.JSONDecodeError")
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in first", line["where"])
    assert [other["handler"] for other in line["others"]] == ["second"]
    assert "canary" not in str(line)
    attempt = record.attempts[0]
    assert "in first" in attempt["error"]["own"]
    assert "json/decoder.py" not in attempt["error"]["own"]
    assert "json/decoder.py" in attempt["error"]["traceback"]
    assert "Traceback" in attempt["errors"][1]["traceback"]


def test_what_is_kept_of_many_errors_is_bounded(run: Run, registry: Registry) -> None:
    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)
        raise ValueError("x" * 100_000)

    for number in range(20):
        registry.on("*", name=f"handler {number}")(lambda _, depth=number: recurse(depth))
    ended, _ = run()
    assert len(ended.attempt) < 20 * 1000 + MOST_TRACEBACKS + 20 * 500
