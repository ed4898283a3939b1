"""How often, and when, each handler of an event is tried: whatever the others do meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic

import pytest
import structlog
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox import handlers
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from app.ops import handlers as doctor
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import pass_time, sweep, take
from workers import Event, Permanent, RetryAfter
from workers.known import announce
from workers.processor import Processor
from workers.progress import SOON_SECONDS
from workers.registry import Registry
from workers.retry import JITTER, span

MAX_ATTEMPTS, RETRY_FOR = 3, 120.0
WAITS = 0, 5, 20
"""Seconds at which the attempts of a handler are due by the schedule, on the average."""
MANY = 20
MOST_ATTEMPTS = 500
"""Of an event in a test: more, and it never ends."""

Behaviour = Callable[[int], BaseException | None]
"""What the n-th run of a handler (from 1) raises."""


class Free(RetryAfter):
    """A wait that is nobody's fault."""

    counts = False


def ok(_: int) -> None:
    """Finishes."""


def fail(_: int) -> BaseException:
    return ValueError()


def for_good(_: int) -> BaseException:
    return Permanent()


def free(_: int) -> BaseException:
    return Free(1)


def free_slowly(_: int) -> BaseException:
    return Free(50)


def after_a_minute(_: int) -> BaseException:
    return RetryAfter(60)


def at_once(_: int) -> BaseException:
    return RetryAfter(0)


def failing_group(_: int) -> BaseException:
    return ExceptionGroup("", [Free(0.1), ValueError()])


def then_ok(runs: int, behaviour: Behaviour) -> Behaviour:
    """Behaves so for so many runs, then finishes."""
    return lambda run: behaviour(run) if run <= runs else None


@dataclass
class World:
    """An event, its handlers, and a clock that runs as fast as they like."""

    inbox: Inbox
    settings: Settings
    registry: Registry = field(default_factory=Registry)
    waited: float = 0.0
    """Seconds that have passed without having been waited for."""
    begun: float = field(default_factory=monotonic)
    runs: dict[str, list[float]] = field(default_factory=dict)
    """When each handler has run."""
    attempts: dict[str, list[int]] = field(default_factory=dict)
    """And what it was told of how often."""

    def __post_init__(self) -> None:
        self.inbox.settings = self.settings

    @property
    def took(self) -> float:
        """Seconds that the test has really taken: they pass for the event, too."""
        return monotonic() - self.begun

    @property
    def now(self) -> float:
        return self.waited + self.took

    def add(self, name: str, behaviour: Behaviour) -> None:
        times = self.runs[name] = []
        told = self.attempts[name] = []

        @self.registry.on("*", name=name)
        def handle(event: Event) -> None:
            times.append(self.now)
            told.append(event.attempt)
            if error := behaviour(len(times)):
                raise error

    def begin(self) -> Record:
        accept_all(self.settings, delivery(b"{}"))
        return take(self.inbox)

    def live(self, record: Record | None = None, attempts: int = MOST_ATTEMPTS) -> Record:
        """Has the event tried until it ends, or so many times."""
        self.inbox.settings = self.settings
        processor = Processor(self.inbox, self.registry)
        record = record or self.begin()
        for _ in range(attempts):
            ended = processor.process(record)
            assert ended
            self.inbox.work("w", ended, want="")
            if ended.outcome != "retry":
                break
            self.waited += ended.delay
            pass_time(self.inbox, record.id, ended.delay)
            sweep(self.inbox)
            record = take(self.inbox)
        return self.inbox.get(record.id)


def about(expected: int, found: int) -> bool:
    """How many waits of a second there is time for depends on how fast the machine is."""
    return expected > MANY and MANY <= found <= expected + 2


@pytest.fixture
def world(inbox: Inbox, settings: Settings) -> World:
    return World(inbox, settings.model_copy(update={"max_attempts": MAX_ATTEMPTS, "retry_for": RETRY_FOR}))


@pytest.mark.parametrize(
    ("handlers", "state", "runs"),
    [
        ([ok], "done", [1]),
        ([fail], "dead", [3]),
        ([for_good], "dead", [1]),
        ([after_a_minute], "dead", [3]),
        ([at_once], "dead", [3]),
        ([free], "dead", [121]),
        ([free_slowly], "dead", [4]),
        ([failing_group], "dead", [3]),
        ([then_ok(2, fail)], "done", [3]),
        ([then_ok(30, free)], "done", [31]),
        ([ok, fail], "dead", [1, 3]),
        ([fail, ok], "dead", [3, 1]),
        ([ok, ok], "done", [1, 1]),
        ([fail, fail], "dead", [3, 3]),
        ([free, fail], "dead", [121, 3]),
        ([fail, free], "dead", [3, 121]),
        ([free_slowly, fail], "dead", [4, 3]),
        ([then_ok(3, free), then_ok(2, fail)], "done", [4, 3]),
        ([then_ok(60, free), fail], "dead", [61, 3]),
        ([for_good, fail], "dead", [1, 3]),
        ([for_good, free], "dead", [1, 121]),
        ([for_good, then_ok(3, free)], "dead", [1, 4]),
        ([for_good, ok], "dead", [1, 1]),
        ([after_a_minute, fail], "dead", [3, 3]),
        ([after_a_minute, at_once], "dead", [3, 3]),
        ([then_ok(1, after_a_minute), free, fail], "dead", [2, 121, 3]),
        ([failing_group, free, for_good, ok], "dead", [3, 121, 1, 1]),
    ],
)
def test_each_handler_has_its_own_attempts_and_schedule(
    world: World, handlers: list[Behaviour], state: str, runs: list[int]
) -> None:
    """P2, P5: neither a wait nor a failure of another takes them away, or has them used up any sooner."""
    for number, behaviour in enumerate(handlers):
        world.add(str(number), behaviour)
    assert world.live().state == state
    for number, (behaviour, expected) in enumerate(zip(handlers, runs, strict=True)):
        times = world.runs[str(number)]
        assert len(times) == expected or about(expected, len(times))
        if behaviour in {fail, failing_group}:
            for due, at in zip(WAITS, times, strict=True):
                assert due * (1 - JITTER) - 2 * SOON_SECONDS <= at
                assert at <= due * (1 + JITTER) + 2 * SOON_SECONDS + world.took


def test_a_handler_waiting_for_a_rate_limit_does_not_kill_the_event_of_another(
    inbox: Inbox, settings: Settings
) -> None:
    """By the default settings: twelve attempts in 28 hours, and not in eleven seconds."""
    world = World(inbox, settings)
    world.add("limited", lambda _: Free(600))
    world.add("failing", fail)
    assert world.live().state == "dead"
    assert len(world.runs["failing"]) == 12
    assert span(12) * (1 - JITTER) <= world.runs["failing"][-1]
    assert world.attempts["failing"] == list(range(1, 13))
    assert set(world.attempts["limited"]) == {1}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (free, "tried for 2m (JOBHOOK_RETRY_FOR)"),
        (fail, "all 3 attempts are used up"),
        (for_good, "trying again is useless"),
    ],
)
def test_a_dead_event_says_why(world: World, behaviour: Behaviour, reason: str) -> None:
    world.add("book", behaviour)
    record = world.live()
    last = record.attempts[-1]
    assert last["outcome"] == "dead"
    assert last["errors"] == [
        {"handler": "book", "given_up": reason} | {name: last["error"][name] for name in ("type", "message")}
    ]
    assert record.tries["book"].due is None
    assert reason in record.tries["book"].why


def test_all_errors_of_an_attempt_are_kept(world: World) -> None:
    world.add("first", fail)
    world.add("second", after_a_minute)
    (attempt,) = world.live(attempts=1).attempts
    assert [(error["handler"], error["type"]) for error in attempt["errors"]] == [
        ("first", "builtins.ValueError"),
        ("second", "workers.retry.RetryAfter"),
    ]


def test_mere_waits_leave_no_line_but_what_is_waited_for(world: World) -> None:
    world.add("limited", free)
    record = world.live(attempts=20)
    assert (record.attempts, record.attempt) == ((), 1)  # the attempt just begun
    assert record.tries["limited"].why == "retry after 1 s"


@pytest.mark.parametrize("attempts", [1, 200, 1000])
def test_as_many_attempts_as_are_set_are_made(inbox: Inbox, settings: Settings, attempts: int) -> None:
    """P10: the age that nobody has set does not cut them short."""
    processor = Processor(inbox, Registry())
    assert processor._limits.retry_for >= 28 * 3600
    inbox.settings = settings.model_copy(update={"max_attempts": attempts})
    assert Processor(inbox, Registry())._limits.retry_for >= span(attempts)
    inbox.settings = settings.model_copy(update={"max_attempts": attempts, "retry_for": 60.0})
    assert Processor(inbox, Registry())._limits.retry_for == 60


def test_what_is_put_back_to_work_has_all_its_time_and_attempts_again(world: World) -> None:
    world.add("limited", free)
    world.add("failing", fail)
    record = world.live()
    assert record.state == "dead"
    world.inbox.replay([record.id])
    record = take(world.inbox)
    assert (record.tries, record.since, record.crashes) == ({}, None, 0)
    assert world.live(record).state == "dead"
    assert len(world.runs["failing"]) == 2 * MAX_ATTEMPTS
    assert about(2 * 121, len(world.runs["limited"]))


def test_a_redelivery_of_a_dead_event_gives_it_its_time_again(world: World) -> None:
    """P4."""
    world.add("failing", fail)
    assert world.live().state == "dead"
    assert world.live().state == "dead"  # delivered once more
    assert len(world.runs["failing"]) == 2 * MAX_ATTEMPTS


def test_an_event_that_waits_may_be_put_back_to_work(world: World) -> None:
    world.add("failing", fail)
    record = world.live(attempts=2)
    world.inbox.work("w", Processor(world.inbox, world.registry).process(record), want="")
    world.inbox.replay([record.id])
    assert take(world.inbox).tries == {}


def test_the_age_counts_from_the_first_attempt(world: World) -> None:
    """P2: after the workers have been away for days, one failure must not be the end of all that has piled up."""
    world.add("failing", then_ok(1, fail))
    record = world.begin()
    world.inbox.redis.hset(f"jobhook:event:{record.id}", "received", 1)
    assert world.live(replace(record, received=0.001)).state == "done"


def test_a_wait_that_ends_past_the_age_is_waited_for(world: World) -> None:
    """What a handler asks for is what it gets; then it is the last time."""
    world.add("patient", lambda _: Free(10 * RETRY_FOR))
    assert world.live().state == "dead"
    assert len(world.runs["patient"]) == 2
    assert world.runs["patient"][1] >= 10 * RETRY_FOR


def test_a_handler_after_one_that_takes_too_long_has_its_turn(world: World) -> None:
    """P2: the time is the event's, but the attempts are the handlers'."""
    world.settings = world.settings.model_copy(update={"handler_timeout": 0.1})

    def hang(_: int) -> None:
        while True:
            pass

    world.add("hanging", hang)
    world.add("after", ok)
    assert world.live().state == "dead"
    assert len(world.runs["after"]) == 1
    assert len(world.runs["hanging"]) == MAX_ATTEMPTS


def crash(world: World, record: Record) -> Record:
    """As if the process had died in this attempt."""
    assert world.inbox.release("w", "It died.") == [record.id]
    world.inbox.redis.zadd("jobhook:retrying", {record.id: 1}, xx=True)
    sweep(world.inbox)
    return take(world.inbox)


def test_a_crash_is_an_attempt_of_nobody(world: World) -> None:
    """It is not known whose it was: others must not give up for it."""
    world.add("failing", fail)
    record = world.begin()
    for _ in range(MAX_ATTEMPTS - 1):
        record = crash(world, record)
    assert world.live(record).state == "dead"
    assert len(world.runs["failing"]) == MAX_ATTEMPTS
    assert world.attempts["failing"] == [3, 4, 5]  # but told of


def test_too_many_crashes_end_an_event(world: World) -> None:
    record = world.begin()
    for _ in range(MAX_ATTEMPTS - 1):
        record = crash(world, record)
    world.inbox.release("w", "It died.")
    assert world.inbox.get(record.id).state == "dead"


def test_a_handler_that_takes_its_process_along_keeps_no_other_from_its_turn(world: World) -> None:
    """P2."""
    for name in "abc":
        world.add(name, ok)
    record = world.begin()
    first = []
    for _ in range(MAX_ATTEMPTS):
        processor = Processor(world.inbox, world.registry)
        world.runs["order"] = []
        record_now = record
        processor.process(replace(record_now, token=0))  # nothing is recorded: the token is stale
        first.append(next(name for name in "abc" if world.runs[name]))
        for name in "abc":
            world.runs[name].clear()
        if len(first) < MAX_ATTEMPTS:
            record = crash(world, record)
    assert first == ["a", "b", "c"]


def test_a_clock_that_was_set_back_puts_nobody_off(world: World) -> None:
    """The event is at work because somebody is due, whatever the time is now."""
    world.add("soon", then_ok(1, fail))
    world.add("later", then_ok(1, after_a_minute))
    record = world.live(attempts=1)
    assert world.live(replace(record, started=(record.started or 0) - 3600), attempts=1).state == "running"
    assert len(world.runs["soon"]) == 2
    world.live(take_again(world))
    assert len(world.runs["later"]) == 2
    assert world.waited < 3600


def take_again(world: World) -> Record:
    (record,) = world.inbox.newest(["running"])
    return record


# Records of the version before, which counted the attempts of the event alone


def test_attempts_made_before_an_upgrade_count(world: World) -> None:
    world.add("failing", fail)
    record = replace(world.begin(), attempt=MAX_ATTEMPTS)
    assert world.live(record).state == "dead"
    assert world.attempts["failing"] == [MAX_ATTEMPTS]


def test_what_an_older_version_has_put_back_to_work_is_tried(world: World) -> None:
    """P4: it knows nothing of handlers that have given up."""
    world.add("book", lambda run: (Permanent(), ValueError(), None)[run - 1])
    record = world.live()
    assert record.state == "dead"
    key = f"jobhook:event:{record.id}"
    world.inbox.replay([record.id])
    world.inbox.redis.hset(key, mapping={"tries:book": record.tries["book"].stored, "since": 1})
    assert world.live(take(world.inbox)).state == "done"


# Handlers that have vanished


def test_an_event_whose_handler_has_vanished_is_not_done(world: World) -> None:
    """P2: it was renamed, or a module is missing. The event waits, says for whom, and ends as dead."""
    world.add("book", fail)
    record = world.live(attempts=1)
    world.registry.handlers.clear()
    record = world.live(record)
    assert record.state == "dead"
    assert record.attempts[-1]["errors"][0]["handler"] == "book"
    assert "Handler book has begun this event, and is not there any more" in record.attempts[-1]["error"]["message"]
    assert world.inbox.stats().counts.get("events:unhandled", 0) == 0


def test_a_handler_that_comes_back_goes_on(world: World) -> None:
    world.add("book", then_ok(1, fail))
    record = world.live(attempts=1)
    handlers, world.registry.handlers = world.registry.handlers, []
    record = world.live(record, attempts=1)
    world.registry.handlers = handlers
    assert world.live(record).state == "done"


def test_who_has_begun_a_step_and_vanished_is_missed(world: World) -> None:
    """Its process died in the step after: nothing but the first one's result tells of it."""
    record = world.begin()
    Event(record, world.inbox, "book").once("invoice", lambda _: 1)
    record = crash(world, record)
    world.add("another", ok)
    record = world.live(record)
    assert record.state == "dead"
    assert record.attempts[-1]["errors"][0]["handler"] == "book"


def test_a_handler_that_no_longer_wants_the_type_is_not_missed(world: World) -> None:
    world.add("book", fail)
    record = world.live(attempts=1)
    world.registry.handlers = []
    world.registry.on("something.else", name="book")(lambda event: None)
    assert world.live(record).state == "done"


def test_who_has_finished_and_vanished_is_not_missed(world: World) -> None:
    world.add("mail", ok)
    world.add("book", then_ok(1, fail))
    record = world.live(attempts=1)
    world.registry.handlers = [handler for handler in world.registry.handlers if handler.name == "book"]
    assert world.live(record).state == "done"


def test_what_open_events_miss_is_told_at_the_start_and_by_the_doctor(world: World) -> None:
    """Before it is run again under its new name."""
    world.add("mail", ok)
    world.add("book", fail)
    world.live(attempts=1)
    redis, renamed = world.inbox.redis, Registry()
    assert list(doctor.check(redis)) == []  # nobody has said which there are
    announce(redis, world.registry)
    assert [finding.level for finding in doctor.check(redis)] == ["ok"]
    renamed.on("*", name="post")(lambda event: None)
    renamed.on("*", name="book")(lambda event: None)
    with structlog.testing.capture_logs() as logs:
        announce(redis, renamed)
    assert [(line["handler"], line["events"]) for line in logs] == [("mail", 1)]
    (finding,) = doctor.check(redis)
    assert (finding.level, finding.finding.rpartition(": ")[2]) == ("warn", "mail (1)")
    assert finding.remedy
    assert "name=" in finding.remedy


def test_what_is_done_misses_nobody(world: World) -> None:
    world.add("mail", ok)
    world.live()
    assert handlers.vanished(world.inbox.redis, set()) == {}


def test_where_there_are_no_handlers_that_is_said(redis: "Redis") -> None:
    """P2: the events of a service that only runs the example are not worked on by anybody."""
    with structlog.testing.capture_logs() as logs:
        announce(redis, Registry())
    assert [line["log_level"] for line in logs] == ["warning"]
    assert [finding.level for finding in doctor.check(redis)] == ["warn"]


def test_handlers_are_announced_once_redis_is_there(own_server: EmbeddedServer, settings: Settings) -> None:
    with connect(settings.model_copy(update={"redis_url": own_server.url})) as redis:
        own_server.kill()
        announce(redis, Registry())
        assert list(doctor.check(redis)) == []
