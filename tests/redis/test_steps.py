"""Durable steps: an effect once, however often its event is tried (P5)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from tests.support import wait_until
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import age, take
from workers import RetryAfter
from workers.event import MAX_RESULT_BYTES, BadResult, Event, LeaseLost, StepNotRun, StepRepeated
from workers.processor import Processor
from workers.registry import Registry
from workers.steps import Step, running, write_key


@pytest.fixture
def begin(inbox: Inbox, settings: Settings) -> Callable[[], Record]:
    """A running event; called again, its next attempt."""
    accept_all(settings, delivery(b"{}"))

    def attempt() -> Record:
        for record in inbox.newest(["running"]):
            inbox.release(record.worker or "", "as if it had died")
            age(inbox, "retrying", record.id)
            inbox.redis.delete("jobhook:swept")
            inbox.sweep()
        return take(inbox)

    return attempt


def test_a_finished_step_is_not_run_again(inbox: Inbox, begin: Callable[[], Record]) -> None:
    keys: list[str] = []

    def step(key: str) -> dict[str, object]:
        keys.append(key)
        return {"sent": True, "n": (1, 2)}

    results = [Event(begin(), inbox, "handler").once("mail", step) for _ in range(3)]
    assert results == [{"sent": True, "n": [1, 2]}] * 3  # as JSON has it, the first time too
    assert len(keys) == 1


def test_a_step_cut_in_the_middle_gets_the_same_key_again(inbox: Inbox, begin: Callable[[], Record]) -> None:
    keys: list[str] = []

    def cut(key: str) -> None:
        keys.append(key)
        raise ConnectionError

    for _ in range(2):
        event = Event(begin(), inbox, "handler")
        with pytest.raises(ConnectionError):
            event.once("mail", cut)
    assert keys[0] == keys[1]
    assert len(keys[0]) == 32


def test_a_step_is_recorded_as_soon_as_redis_takes_writes_again(own_server: EmbeddedServer, settings: Settings) -> None:
    """P5: it has happened, so a Redis that refuses writes for a while must not have it run again."""
    settings = settings.model_copy(update={"redis_url": own_server.url})
    with connect(settings) as redis, connect(settings) as other, ThreadPoolExecutor(1) as pool:
        accept_all(settings, delivery(b"{}"))
        event = Event(take(Inbox(redis, settings)), Inbox(redis, settings), "handler")

        def refuse(_: str) -> str:
            other.config_set("min-replicas-to-write", 1)
            return "sent"

        step = pool.submit(event.once, "mail", refuse)
        wait_until(lambda: other.info("errorstats").get("errorstat_NOREPLICAS"), "a refused write")
        other.config_set("min-replicas-to-write", 0)
        assert step.result() == "sent"
        assert Inbox(other, settings).get(event.id).steps == (("handler / mail", "sent"),)


def test_keys_differ_by_event_handler_and_step() -> None:
    keys = {Step(event, name).key for event in ("a", "b") for name in ("one / x", "two / x", "one / y")}
    assert len(keys) == 6


def test_a_stale_workers_result_is_refused(inbox: Inbox, begin: Callable[[], Record]) -> None:
    stale = Event(begin(), inbox, "handler")
    current = Event(begin(), inbox, "handler")
    with pytest.raises(LeaseLost):
        stale.once("mail", lambda _: "stale")
    assert current.once("mail", lambda _: "current") == "current"


@pytest.mark.parametrize("result", [object(), "x" * MAX_RESULT_BYTES, 2**70], ids=["not JSON", "large", "huge"])
def test_a_result_that_cannot_be_kept_is_told_and_not_tried_again(
    inbox: Inbox, begin: Callable[[], Record], result: object
) -> None:
    """The effect has happened: another attempt would repeat it."""
    with pytest.raises(BadResult):
        Event(begin(), inbox, "handler").once("mail", lambda _: result)


def test_a_second_step_of_the_same_name_is_an_error_in_every_attempt(inbox: Inbox, begin: Callable[[], Record]) -> None:
    """P5: in a loop, the first turn would stand for all of them, and the rest would never be done."""
    sent: list[int] = []

    def remind(event: Event) -> None:
        for number in range(3):
            event.once("reminder", lambda _, number=number: sent.append(number))  # type: ignore[misc]

    for _ in range(2):
        with pytest.raises(StepRepeated, match="'reminder' is there twice: give each step a name of its own"):
            remind(Event(begin(), inbox, "handler"))
    assert sent == [0]


def test_a_step_inside_itself_is_an_error(inbox: Inbox, begin: Callable[[], Record]) -> None:
    event = Event(begin(), inbox, "handler")
    with pytest.raises(StepRepeated):
        event.once("mail", lambda _: event.once("mail", lambda _: "inner"))


def test_two_async_steps_of_one_name_at_once_are_an_error(inbox: Inbox, begin: Callable[[], Record]) -> None:
    sent: list[str] = []

    async def step(_: str) -> None:
        await asyncio.sleep(0)
        sent.append("sent")

    async def both(event: Event) -> list[object]:
        steps = (event.once_async("mail", step) for _ in range(2))
        return list(await asyncio.gather(*steps, return_exceptions=True))

    first, second = asyncio.run(both(Event(begin(), inbox, "handler")))
    assert first is None
    assert isinstance(second, StepRepeated)
    assert sent == ["sent"]


def test_a_step_that_has_failed_may_be_tried_again_in_the_same_attempt(
    inbox: Inbox, begin: Callable[[], Record]
) -> None:
    event = Event(begin(), inbox, "handler")
    with pytest.raises(ZeroDivisionError):
        event.once("mail", lambda _: 1 // 0)
    assert event.once("mail", lambda _: "sent") == "sent"


def test_a_step_whose_result_cannot_be_kept_has_run(inbox: Inbox, begin: Callable[[], Record]) -> None:
    event = Event(begin(), inbox, "handler")
    with pytest.raises(BadResult):
        event.once("mail", lambda _: object())
    with pytest.raises(StepRepeated):
        event.once("mail", lambda _: "again")


async def _send(_: str) -> str:
    return "sent"


@pytest.mark.parametrize(
    "lazy", [_send, lambda _: (n for n in "ab"), lambda _: _send], ids=["async", "gen", "function"]
)
def test_a_step_of_which_nothing_has_run_is_not_finished(
    inbox: Inbox, begin: Callable[[], Record], lazy: Callable[[str], object]
) -> None:
    event = Event(begin(), inbox, "handler")
    with pytest.raises(StepNotRun):
        event.once("mail", lazy)
    assert inbox.get(event.id).steps == ()
    assert event.once("mail", lambda _: "sent") == "sent"


def test_an_async_step_of_a_plain_function_has_run(inbox: Inbox, begin: Callable[[], Record]) -> None:
    """P5: to fail after its effect would repeat it in each attempt."""
    event = Event(begin(), inbox, "handler")
    assert asyncio.run(event.once_async("mail", lambda _: "sent")) == "sent"  # type: ignore[arg-type,return-value]
    assert inbox.get(event.id).steps == (("handler / mail", "sent"),)


def test_an_async_step_that_nobody_awaits_fails_its_handler(inbox: Inbox, begin: Callable[[], Record]) -> None:
    registry = Registry()

    @registry.on("*")
    def forget_to_await(event: Event) -> None:
        event.once_async("mail", _send)  # type: ignore[unused-coroutine]

    ended = Processor(inbox, registry).process(begin())
    assert ended
    assert ended.outcome == "retry"
    assert b"'mail' was not awaited" in ended.attempt


def test_async_steps_are_the_same(inbox: Inbox, begin: Callable[[], Record]) -> None:
    ran: list[str] = []

    async def step(key: str) -> str:
        await asyncio.sleep(0)
        ran.append(key)
        return "sent"

    for _ in range(2):
        event = Event(begin(), inbox, "handler")
        assert asyncio.run(event.once_async("mail", step)) == "sent"
    assert len(ran) == 1


def test_writes_of_a_step_have_keys_that_are_the_same_the_next_time() -> None:
    def writes() -> list[str | None]:
        with running(Step("event", "step")):
            return [
                *(write_key("POST", "/a", b"1"), write_key("POST", "/a", b"1")),
                *(write_key("POST", "/a", b"2"), write_key("POST", "/b", b"1")),
            ]

    assert writes() == writes()
    assert len(set(writes())) == 4
    assert write_key("POST", "/a", b"1") is None


def test_a_wait_that_is_nobodys_fault_uses_up_no_attempt(inbox: Inbox, settings: Settings) -> None:
    class RateLimited(RetryAfter):
        counts = False

    registry = Registry()

    @registry.on("*")
    def limited(event: Event) -> None:
        assert event.attempt == 1
        raise RateLimited(0)

    inbox.settings = settings.model_copy(update={"max_attempts": 1})
    accept_all(settings, delivery(b"{}"))
    processor = Processor(inbox, registry)
    record = take(inbox)
    # At the limit it would be dead: an uncounted wait is looked at before the limit is.
    for _ in range(3):
        ended = processor.process(record)
        assert ended
        assert ended.outcome == "retry"
        inbox.work("w", ended, want="")
        age(inbox, "retrying", record.id)
        inbox.redis.delete("jobhook:swept")
        inbox.sweep()
        record = take(inbox)
    assert record.attempt == 1
    assert record.token == 4
