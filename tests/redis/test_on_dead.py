"""`@on_dead`: one's own code when an event has died."""

from collections.abc import Callable
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from app.errors import ConfigError
from app.inbox.inbox import Inbox
from tests.support.deliveries import queue_events
from workers import Event, Permanent
from workers.event import LeaseLost
from workers.presence import Presence, entry
from workers.processor import Processor
from workers.registry import Registry
from workers.stopping import Stop
from workers.worker import Worker

told: list[tuple[str, dict[str, str]]] = []


@pytest.fixture
def registry() -> Registry:
    told.clear()
    return Registry()


def tell(event: Event) -> None:
    told.append((event.id, dict(event.errors)))


def fail(event: Event) -> None:
    raise Permanent("canary")


def work(inbox: Inbox, registry: Registry) -> None:
    """A worker, until there is nothing to do."""
    presence = Presence(entry("w", inbox.redis), 5.0)
    Worker("w", inbox, Processor(inbox, registry), presence, stop=Stop()).run(burst=True)


def test_it_is_run_once_the_death_is_recorded(inbox: Inbox, registry: Registry) -> None:
    states = []
    registry.add("book", fail, "*")
    registry.on_dead()(tell)
    note = _named(lambda event: states.append(inbox.get(event.id).state))
    registry.on_dead("test.*")(note)
    registry.on_dead("*")(note)  # still once
    registry.on_dead("other.*")(_named(lambda event: told.append((event.id, {}))))
    first, second = queue_events(inbox.settings, 2)
    work(inbox, registry)
    assert sorted(told) == sorted((id, {"book": "canary (trying again is useless)"}) for id in (first, second))
    assert states == ["dead", "dead"]


def _named(function: Callable[[Event], Any]) -> Callable[[Event], None]:
    def named(event: Event) -> None:
        function(event)

    named.__qualname__ = f"named_{id(function)}"
    return named


def test_it_is_not_run_for_what_is_done_or_tried_again(inbox: Inbox, registry: Registry) -> None:
    def flaky(event: Event) -> None:
        if event.type == "test.flaky":
            raise ValueError

    registry.add("book", flaky, "*")
    registry.on_dead()(tell)
    queue_events(inbox.settings, 1)
    queue_events(inbox.settings, 1, "test.flaky")
    work(inbox, registry)
    assert inbox.stats().states["done"] == inbox.stats().states["retrying"] == 1
    assert told == []


def test_the_reasons_are_those_of_all_handlers_that_have_given_up(inbox: Inbox, registry: Registry) -> None:
    """Also of those that have done so in an attempt before."""

    def slower(event: Event) -> None:
        if event.attempt == 2:
            raise Permanent("at last")
        raise ValueError

    registry.add("book", fail, "*")
    registry.add("slow", slower, "*")
    registry.add("well", lambda _: None, "*")
    registry.on_dead()(tell)
    (id,) = queue_events(inbox.settings, 1)
    work(inbox, registry)
    assert told == []
    inbox.redis.hset(f"jobhook:event:{id}", "tries:slow", '[1,0,""]')
    inbox.redis.zadd("jobhook:retrying", {id: 0})
    inbox.sweep()
    work(inbox, registry)
    ((_, errors),) = told
    assert errors.keys() == {"book", "slow"}
    assert errors["slow"].startswith("at last")


@pytest.mark.parametrize("error", [ValueError("canary"), SystemExit(3), KeyboardInterrupt(), LeaseLost("x")])
def test_what_it_raises_is_logged_and_changes_nothing(error: BaseException, inbox: Inbox, registry: Registry) -> None:
    """P7: without its message."""

    def break_down(event: Event) -> None:
        raise error

    registry.add("book", fail, "*")
    registry.on_dead()(break_down)
    registry.on_dead()(tell)
    (id,) = queue_events(inbox.settings, 1)
    before = structlog.get_config()
    with capture_logs() as logs:
        structlog.configure(cache_logger_on_first_use=False)
        work(inbox, registry)
    structlog.configure(**before)
    record = inbox.get(id)
    assert (record.state, len(record.attempts)) == ("dead", 1)
    assert [one[0] for one in told] == [id]
    (line,) = [line for line in logs if line["event"] == "on_dead failed"]
    assert line["id"] == id
    assert line["handler"].endswith("break_down")
    assert "canary" not in repr(line)


def test_it_has_a_time_limit(inbox: Inbox, registry: Registry) -> None:
    """P9: the worker goes on."""

    def hang(event: Event) -> None:
        while True:
            pass

    inbox.settings = inbox.settings.model_copy(update={"handler_timeout": 1.0})
    registry.add("book", fail, "test.ok")
    registry.on_dead()(hang)
    queue_events(inbox.settings, 1)
    queue_events(inbox.settings, 1, "test.other")
    work(inbox, registry)
    assert inbox.stats().states["dead"] == inbox.stats().states["done"] == 1


def test_a_step_of_a_dead_event_is_refused(inbox: Inbox, registry: Registry) -> None:
    """P5: nothing of an event that has ended is written."""
    raised: list[BaseException] = []

    def take_a_step(event: Event) -> None:
        try:
            event.once("step", lambda _: None)
        except BaseException as error:
            raised.append(error)
            raise

    registry.add("book", fail, "*")
    registry.on_dead()(take_a_step)
    (id,) = queue_events(inbox.settings, 1)
    work(inbox, registry)
    assert [type(error) for error in raised] == [LeaseLost]
    assert inbox.get(id).steps == ()


def test_async_functions_are_run(inbox: Inbox, registry: Registry) -> None:
    async def tell_async(event: Event) -> None:
        tell(event)

    registry.add("book", fail, "*")
    registry.on_dead()(tell_async)
    queue_events(inbox.settings, 1)
    work(inbox, registry)
    assert len(told) == 1


def test_what_would_not_run_is_refused(registry: Registry) -> None:
    """P10."""
    with pytest.raises(ConfigError, match=r"@on_dead\(\) for all"):
        registry.on_dead(tell)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="has to take the event"):
        registry.on_dead()(lambda: None)

    def endless(event: Event) -> Any:
        yield event

    with pytest.raises(ConfigError, match="has a `yield`"):
        registry.on_dead()(endless)
