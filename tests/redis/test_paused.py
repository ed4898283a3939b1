"""Pauses: what is received meanwhile waits, no attempt is used up, and nothing dies of it (P2)."""

from collections.abc import Callable

import pytest
from redis import Redis

from app.config.settings import Settings
from app.inbox.inbox import Inbox
from app.inbox.paused import EVERYTHING, KEY, covering, in_force, pause, resume
from app.inbox.record import Record
from app.ops.health import check
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import ended, pass_time, sweep, take
from workers.event import Event
from workers.processor import Processor
from workers.progress import PAUSE_LOOK_SECONDS
from workers.registry import Registry

RETRY_FOR = 120.0
HOUR = 3600.0


class World:
    """An inbox, and a worker with two handlers of which one may fail."""

    def __init__(self, inbox: Inbox, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"retry_for": RETRY_FOR, "max_attempts": 3})
        self.inbox = Inbox(inbox.redis, self.settings)
        self.ran: list[str] = []
        self.fails = False
        registry = Registry()
        registry.add("book", self._book, "invoice.*")
        registry.add("mail", self._mail, "*")
        self._processor = Processor(self.inbox, registry)

    def _book(self, _: Event) -> None:
        self.ran.append("book")
        if self.fails:
            raise ValueError

    def _mail(self, _: Event) -> None:
        self.ran.append("mail")

    def accept(self, type: str = "invoice.paid", body: bytes = b'{"n":1}') -> str:
        (receipt,) = accept_all(self.settings, delivery(body, type=type))
        return receipt.id

    def work(self) -> None:
        """Works on what there is."""
        assignment = self.inbox.work("w")
        while assignment.taken:
            assignment = self.inbox.work("w", self._processor.process(assignment.taken, assignment.paused))

    def later(self, id: str, seconds: float) -> Record:
        """After so long the event is taken up again, if it is due."""
        pass_time(self.inbox, id, seconds)
        sweep(self.inbox)
        self.work()
        return self.inbox.get(id)


@pytest.fixture
def world(inbox: Inbox, settings: Settings) -> World:
    return World(inbox, settings)


def test_while_everything_is_paused_nothing_is_taken_and_ends_are_recorded(inbox: Inbox, world: World) -> None:
    world.accept()
    record = take(inbox)
    waiting = world.accept(body=b'{"n":2}')
    pause(inbox.redis, EVERYTHING, None, "somebody")
    assignment = inbox.work("w", ended(record))
    assert (assignment.recorded, assignment.taken, assignment.suspended) == (True, None, True)
    assert inbox.work("w", want=waiting).taken is None  # as a stock RQ worker asks
    world.work()
    assert inbox.get(waiting).state == "queued"
    resume(inbox.redis, EVERYTHING)
    world.work()
    assert inbox.get(waiting).state == "done"


@pytest.mark.parametrize("what", [EVERYTHING, "invoice.*"])
def test_a_pause_ends_by_itself_when_its_time_is_over(what: str, inbox: Inbox, world: World) -> None:
    made = pause(inbox.redis, what, HOUR, "somebody")
    (found,) = in_force(inbox.redis)
    assert (found.what, found.by) == (what, "somebody")
    assert found.until == pytest.approx(found.since + HOUR)
    inbox.redis.hset(KEY, what, f"{round(made.since * 1000) - 1} 1 somebody")
    assert in_force(inbox.redis) == []
    id = world.accept()
    world.work()
    assert inbox.get(id).state == "done"
    assert not inbox.redis.exists(KEY)


@pytest.mark.parametrize(
    ("what", "ran"), [("invoice.*", []), ("INVOICE.PAID", []), ("book", ["mail"]), ("quote.*", None)]
)
def test_what_is_paused_waits_and_the_rest_goes_on(
    what: str, ran: list[str] | None, inbox: Inbox, world: World
) -> None:
    pause(inbox.redis, what, None, "somebody")
    id = world.accept()
    world.work()
    record = inbox.get(id)
    if ran is None:
        assert record.state == "done"
        return
    assert (record.state, world.ran) == ("retrying", ran)
    assert record.unfinished["book"].why == f"paused: {what}"
    assert record.unfinished["book"].used == 0
    assert resume(inbox.redis, what) == 1
    sweep(inbox)
    world.work()
    assert inbox.get(id).state == "done"
    assert sorted(world.ran) == ["book", "mail"]


def test_a_destination_is_paused_by_its_url() -> None:
    url = "https://erp.internal/hooks"
    assert covering({url: HOUR}, f"forward {url}", "invoice.paid") == url
    assert covering({url: HOUR}, "forward https://erp.internal/other", "invoice.paid") is None
    assert covering({"invoice.*": 1.0, "book": HOUR}, "book", "invoice.paid") == "book"


def test_an_event_does_not_age_while_it_is_paused_and_keeps_its_attempts(inbox: Inbox, world: World) -> None:
    """P2: a pause far longer than JOBHOOK_RETRY_FOR is nobody's failure."""
    pause(inbox.redis, "book", None, "somebody")
    id = world.accept()
    world.work()
    for _ in range(5):
        record = world.later(id, RETRY_FOR)
        assert (record.state, record.unfinished["book"].used) == ("retrying", 0)
    pass_time(inbox, id, RETRY_FOR)
    resume(inbox.redis, "book")
    world.fails = True
    sweep(inbox)
    world.work()
    record = inbox.get(id)
    assert (record.state, record.unfinished["book"].used) == ("retrying", 1)
    assert record.held is None
    assert world.later(id, RETRY_FOR).state == "dead"  # from here on it ages again


def test_an_event_that_has_failed_before_its_pause_goes_on_where_it_was(inbox: Inbox, world: World) -> None:
    world.fails = True
    id = world.accept()
    world.work()
    pause(inbox.redis, "invoice.*", None, "somebody")
    assert world.later(id, RETRY_FOR / 2).unfinished["book"].used == 1
    assert world.later(id, 10 * RETRY_FOR).unfinished["book"].why == "paused: invoice.*"
    resume(inbox.redis, "invoice.*")
    world.fails = False
    sweep(inbox)
    world.work()
    assert inbox.get(id).state == "done"


def test_the_end_of_one_pause_leaves_those_who_wait_for_another(inbox: Inbox, world: World) -> None:
    pause(inbox.redis, "invoice.*", None, "somebody")
    pause(inbox.redis, "quote.*", None, "somebody")
    ids = [world.accept(), world.accept("quote.sent", b'{"n":2}')]
    world.work()
    assert resume(inbox.redis, "quote.*") == 1
    sweep(inbox)
    world.work()
    assert [inbox.get(id).state for id in ids] == ["retrying", "done"]


def test_who_was_put_aside_just_as_the_pause_ended_looks_by_himself(inbox: Inbox, world: World) -> None:
    """P2: nobody waits for a word that has been said already."""
    pause(inbox.redis, "book", None, "somebody")
    id = world.accept()
    world.work()
    inbox.redis.delete(KEY)  # and nobody was woken
    assert world.later(id, PAUSE_LOOK_SECONDS + 1).state == "done"


@pytest.mark.parametrize("spoil", [lambda redis: redis.set(KEY, "x"), lambda redis: redis.hset(KEY, "*", "forever")])
def test_what_somebody_else_has_put_there_pauses_nothing(
    spoil: Callable[["Redis"], object], inbox: Inbox, world: World
) -> None:
    spoil(inbox.redis)
    id = world.accept()
    world.work()
    assert inbox.get(id).state == "done"


def test_doctor_says_what_is_paused_since_when_and_how_it_ends(inbox: Inbox, settings: Settings) -> None:
    """P9."""
    pause(inbox.redis, EVERYTHING, HOUR, "ann@desk")
    pause(inbox.redis, "invoice.*", None, "bob@desk")
    first, second = (one for one in check(settings, inbox.redis) if one.name == "paused")
    assert first.level == second.level == "warn"
    assert first.finding.startswith("everything since ")
    assert " by ann@desk, until 2" in first.finding
    assert second.finding.startswith("`invoice.*` since ")
    assert ", until it is ended: " in second.finding
    assert second.remedy == "run `jobhook resume 'invoice.*'` when it may go on"
