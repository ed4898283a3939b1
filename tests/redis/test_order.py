"""Order: what is superseded, and one resource's events one at a time."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Delivery, Ended, Record
from tests.support import wait_until
from tests.support.deliveries import accept_all, received
from tests.support.inbox import age, ended, sweep, take
from tests.support.stack import MakeStack
from workers import Permanent
from workers.event import Event
from workers.processor import Processor
from workers.registry import Registry

Accept = Callable[..., str]


def made(type: str, resource: str, number: int) -> Delivery:
    """The delivery of an event of a resource; the higher the number, the later it occurred."""
    created = f"2026-03-03T09:{number // 60:02d}:{number % 60:02d}Z"
    body = (
        f'{{"id":"evt_{resource}_{number}","type":"{type}","created_at":"{created}","data":{{"id":"{resource}"}}}}'
    ).encode()
    return received(body)


@pytest.fixture
def accept(redis: object, settings: Settings) -> Accept:
    def record(type: str, resource: str, number: int) -> str:
        return accept_all(settings, made(type, resource, number))[0].id

    return record


HANDLED = "invoice.*"


def watching(seen: list[bool]) -> Registry:
    """A handler `mirror` that notes whether its event is superseded."""
    registry = Registry()
    registry.on(HANDLED, name="mirror")(lambda event: seen.append(event.superseded))
    return registry


def finish(inbox: Inbox, record: Record, registry: Registry | None = None) -> Ended:
    processed = Processor(inbox, registry or Registry()).process(record)
    assert processed
    inbox.work("w", processed, want="")
    return processed


def test_an_older_event_of_the_same_resource_is_superseded(inbox: Inbox, accept: Accept) -> None:
    for resource, number in (("inv_1", 2), ("inv_1", 1), ("inv_2", 1), ("inv_1", 3)):
        accept("invoice.paid", resource, number)
    records = [take(inbox, f"w{n}") for n in range(4)]
    seen: list[bool] = []
    for record in records:
        finish(inbox, record, watching(seen))
    assert seen == [False, True, False, False]


def test_only_what_this_handler_has_finished_supersedes(inbox: Inbox, accept: Accept) -> None:
    """P2: an update would be lost that only looked as if it had been replaced."""
    accept("invoice.paid", "inv_1", 3)
    accept("invoice.voided", "inv_1", 2)
    accept("invoice.paid", "inv_1", 1)
    failed, unwanted, older = (take(inbox, f"w{n}") for n in range(3))
    seen: list[bool] = []

    registry = watching(seen)
    registry.handlers.clear()

    @registry.on("invoice.paid", name="mirror")
    def fail(event: Event) -> None:
        if event.occurred_at and event.occurred_at.second == 3:
            raise Permanent
        seen.append(event.superseded)

    registry.on("*", name="another")(lambda event: None)
    assert finish(inbox, failed, registry).outcome == "dead"
    assert finish(inbox, unwanted, registry).outcome == "done"
    finish(inbox, older, registry)
    assert seen == [False]


def test_a_handler_that_has_finished_supersedes_though_another_has_failed(inbox: Inbox, accept: Accept) -> None:
    accept("invoice.paid", "inv_1", 2)
    accept("invoice.paid", "inv_1", 1)
    newer, older = take(inbox, "w1"), take(inbox, "w2")
    seen: list[bool] = []
    registry = watching(seen)

    @registry.on("*")
    def fail(event: Event) -> None:
        seen.append(event.superseded)
        raise ValueError

    for record in (newer, older):
        assert finish(inbox, record, registry).outcome == "retry"
    assert seen == [False, False, True, False]  # by turns: mirror, fail


def test_an_event_dated_in_the_future_supersedes_nothing_that_comes_later(inbox: Inbox, settings: Settings) -> None:
    """P2: a due date taken for the time of the event, or a clock that is wrong."""
    body = b'{"id":"%d","type":"invoice.paid","created_at":"%s","data":{"id":"inv_1"}}'
    seen: list[bool] = []
    now = datetime.now(UTC)
    for number, moment in enumerate(("2099-01-01T00:00:00Z", now.isoformat(), (now + timedelta(hours=1)).isoformat())):
        accept_all(settings, received(body % (number, moment.encode())))
    records = [take(inbox, f"w{n}") for n in range(3)]
    for seconds, record in enumerate(records):
        finish(inbox, replace(record, received=record.received + seconds), watching(seen))
    assert seen == [False, True, False]


def test_what_an_older_version_has_noted_still_counts(inbox: Inbox, accept: Accept) -> None:
    """A rolling upgrade: but not what it has noted of an event dated in the future."""
    for number in (1, 2):
        accept("invoice.paid", f"inv_{number}", 1)
    seen: list[bool] = []
    first, second = take(inbox, "w1"), take(inbox, "w2")
    inbox.redis.set("jobhook:latest:invoice/inv_1", first.received)
    inbox.redis.set("jobhook:latest:invoice/inv_2", 4e9)
    for record in (first, second):
        finish(inbox, record, watching(seen))
    assert seen == [True, False]


def test_what_is_known_of_a_resource_expires(inbox: Inbox, accept: Accept, settings: Settings) -> None:
    accept("invoice.paid", "inv_1", 1)
    finish(inbox, take(inbox), watching([]))
    assert 0 < int(inbox.redis.ttl("jobhook:handled:invoice/inv_1")) <= settings.retention


def test_a_turn_is_passed_on_in_the_order_received(inbox: Inbox, accept: Accept) -> None:
    ids = [accept("job.moved", "job_1", number) for number in range(3)]
    assert sweep(inbox) == (0, 0, 0, 0)
    records = [take(inbox, f"w{n}") for n in range(3)]
    turns = [inbox.take_turn(record.id, record.token, "job/job_1") for record in records]
    assert turns == [True, False, False]
    assert [inbox.get(id).state for id in ids] == ["running", "retrying", "retrying"]
    assert inbox.get(ids[1]).attempt == 0
    for expected in ids[1:]:
        inbox.work("w", ended(records[0]), want="")
        records[0] = take(inbox)
        assert records[0].id == expected
        assert inbox.take_turn(records[0].id, records[0].token, "job/job_1")
    inbox.work("w", ended(records[0]), want="")
    assert inbox.redis.keys("jobhook:turn:*") == inbox.redis.keys("jobhook:line:*") == []


@pytest.mark.parametrize("end", ["crash", "retry", "dead"])
def test_a_turn_is_passed_on_however_the_attempt_ends(inbox: Inbox, accept: Accept, end: str) -> None:
    """P2."""
    accept("job.moved", "job_1", 1)
    waiting = accept("job.moved", "job_1", 2)
    sweep(inbox)
    first, second = take(inbox, "w1"), take(inbox, "w2")
    inbox.take_turn(first.id, first.token, "job/job_1")
    inbox.take_turn(second.id, second.token, "job/job_1")
    if end == "crash":
        inbox.release("w1", "It died.")
    else:
        inbox.work("w1", ended(first, "retry" if end == "retry" else "dead", delay=60), want="")
    assert take(inbox).id == waiting


def test_who_gets_the_turn_does_not_wait_behind_a_backlog(inbox: Inbox, accept: Accept) -> None:
    """Else a resource would get one event done each time that all of the queue is through."""
    accept("job.moved", "job_1", 1)
    waiting = accept("job.moved", "job_1", 2)
    backlog = [accept("job.moved", f"job_{number}", 1) for number in range(2, 5)]
    first, second = take(inbox, "w1"), take(inbox, "w2")
    inbox.take_turn(first.id, first.token, "job/job_1")
    inbox.take_turn(second.id, second.token, "job/job_1")
    age(inbox, "queued", *backlog)
    inbox.work("w1", ended(first), want="")
    assert sweep(inbox) == (0, 0, 0, 0)  # though past its patience, what is behind the head is not lost
    assert [take(inbox, "w").id for _ in range(4)] == [waiting, *backlog]
    assert inbox.redis.llen("rq:queue:jobhook") == 0


def test_a_turn_that_was_not_passed_on_is_taken_over(inbox: Inbox, accept: Accept) -> None:
    """P2: the one who waits looks again by itself, and who has the turn is no longer at work."""
    gone = accept("job.moved", "job_1", 1)
    waiting = accept("job.moved", "job_1", 2)
    first, second = take(inbox, "w1"), take(inbox, "w2")
    inbox.take_turn(first.id, first.token, "job/job_1")
    inbox.take_turn(second.id, second.token, "job/job_1")
    inbox.redis.hdel(f"jobhook:event:{gone}", "turn")  # so it will not pass it on
    inbox.work("w1", ended(first), want="")
    assert inbox.redis.get("jobhook:turn:job/job_1") == gone.encode()
    age(inbox, "retrying", waiting)
    sweep(inbox)
    again = take(inbox)
    assert inbox.take_turn(again.id, again.token, "job/job_1")
    assert inbox.redis.keys("jobhook:line:*") == []
    assert int(inbox.redis.ttl("jobhook:turn:job/job_1")) > 0


def test_a_turn_that_could_not_be_asked_for_uses_up_no_attempt(own_server: EmbeddedServer, settings: Settings) -> None:
    """P2: Redis is away just then; the event comes again at once, and not by the schedule of its failures."""
    settings = settings.model_copy(update={"redis_url": own_server.url})
    inbox = Inbox(connect(settings), settings)
    registry = Registry()
    registry.on("job.*", one_at_a_time="resource")(lambda event: None)
    accept_all(settings, made("job.moved", "job_1", 1))
    record = take(inbox)
    own_server.kill()
    processed = Processor(inbox, registry).process(record)
    assert processed
    assert (processed.outcome, processed.delay, processed.uncounted) == ("retry", 0, True)
    own_server.start()
    assert inbox.work("w1", processed, want="").recorded
    sweep(inbox)
    again = take(inbox)
    assert again.attempt == 1
    finish(inbox, again)
    inbox.redis.close()


def test_a_stale_attempt_gets_no_turn(inbox: Inbox, accept: Accept) -> None:
    accept("job.moved", "job_1", 1)
    record = take(inbox)
    assert not inbox.take_turn(record.id, record.token + 1, "job/job_1")


def test_events_of_a_resource_never_overlap_while_others_do(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """20 resources with 50 events each on 4 workers."""
    stack = make_stack(server.url)
    resources, number = 20, 50
    deliveries = [made("serial.moved", f"res_{r}", n) for n in range(number) for r in range(resources)]
    accept_all(stack.settings, *deliveries)
    stack.start_workers(4)
    total = resources * number
    wait_until(lambda: stack.inbox.stats().states["done"] == total, "all events", patience=60)
    assert stack.redis.get("overlaps") is None
    assert stack.redis.keys("jobhook:turn:*") == stack.redis.keys("jobhook:line:*") == []
    assert stack.redis.scard("together") > 1  # different resources did run at the same time
    assert stack.inbox.stats().counts.get("attempts:retry", 0) == 0
