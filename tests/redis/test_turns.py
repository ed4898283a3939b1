"""Whose turn it is, where the events of a resource run one at a time: move by move."""

from collections.abc import Callable

import pytest

from app.config.settings import Settings
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import age, ended, sweep, take

RESOURCE = "job/job_1"

Queue = Callable[[int], list[str]]


@pytest.fixture
def queue(inbox: Inbox, settings: Settings) -> Queue:
    """Records so many events, received one after the other; their ids."""

    def record(number: int) -> list[str]:
        ids = []
        for n in range(number):
            ids.append(accept_all(settings, delivery(b"%d" % n))[0].id)
            inbox.redis.hset(f"jobhook:event:{ids[-1]}", "received", n + 1)
        return ids

    return record


def asks(inbox: Inbox, record: Record) -> bool:
    return inbox.take_turn(record.id, record.token, RESOURCE)


def test_the_line_is_in_the_order_received_not_in_that_of_asking(inbox: Inbox, queue: Queue) -> None:
    ids = queue(3)
    first, second, third = (take(inbox, f"w{n}") for n in range(3))
    assert asks(inbox, first)
    assert not asks(inbox, third)
    assert not asks(inbox, second)
    inbox.work("w0", ended(first), want="")
    assert take(inbox).id == ids[1]


def test_nobody_jumps_the_line_while_who_has_the_turn_is_queued(inbox: Inbox, queue: Queue) -> None:
    """The turn was passed on to the second, which no worker has taken yet."""
    ids = queue(3)
    first, second, third = (take(inbox, f"w{n}") for n in range(3))
    assert asks(inbox, first)
    assert not asks(inbox, second)
    inbox.work("w0", ended(first), want="")
    assert inbox.get(ids[1]).state == "queued"
    assert not asks(inbox, third)
    assert take(inbox).id == ids[1]


def test_who_was_passed_the_turn_and_dies_before_it_begins_passes_it_on(inbox: Inbox, queue: Queue) -> None:
    """P2: at once, and not when the third looks for itself, after a minute."""
    ids = queue(3)
    first, second, third = (take(inbox, f"w{n}") for n in range(3))
    assert asks(inbox, first)
    assert not asks(inbox, second)
    assert not asks(inbox, third)
    inbox.work("w0", ended(first), want="")
    assert take(inbox, "dies").id == ids[1]
    inbox.release("dies", "It died.")
    assert take(inbox).id == ids[2]


def test_a_waiting_event_whose_record_is_gone_does_not_stop_the_line(inbox: Inbox, queue: Queue) -> None:
    """P2: deleted by hand, say."""
    ids = queue(3)
    first, second, third = (take(inbox, f"w{n}") for n in range(3))
    assert asks(inbox, first)
    assert not asks(inbox, second)
    assert not asks(inbox, third)
    inbox.redis.delete(f"jobhook:event:{ids[1]}")
    inbox.work("w0", ended(first), want="")
    assert take(inbox).id == ids[2]


def test_an_event_that_waits_looks_for_itself_in_the_end(inbox: Inbox, queue: Queue) -> None:
    """P2: within a minute, should the turn never be passed on."""
    ids = queue(2)
    first, second = take(inbox, "w0"), take(inbox, "w1")
    assert asks(inbox, first)
    assert not asks(inbox, second)
    due = inbox.redis.zscore("jobhook:retrying", ids[1])
    seconds, _ = inbox.redis.time()
    assert due is not None
    assert due <= (seconds + 61) * 1000
    age(inbox, "retrying", ids[1])
    sweep(inbox)
    assert take(inbox).attempt == 1  # waiting has used up none
