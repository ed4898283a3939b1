"""The states of an event and the scripts that change them, against a real server."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from app.config.settings import Settings
from app.errors import EventNotFound
from app.inbox.inbox import LEASE_MARGIN_SECONDS, SWEEP_MOST, Inbox
from app.inbox.record import Delivery, Ended
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import ATTEMPT, age, ended, sweep, take

LIST = "rq:queue:jobhook"
WAKE = "jobhook:wake"


@pytest.fixture
def accept(inbox: Inbox, settings: Settings) -> Callable[..., str]:
    """Records a delivery; the id it got."""

    def record(made: Delivery | bytes = b"one") -> str:
        return accept_all(settings, made if isinstance(made, Delivery) else delivery(made))[0].id

    return record


def states(inbox: Inbox) -> dict[str, int]:
    return {state: number for state, number in inbox.stats().states.items() if number}


def test_an_event_goes_from_queued_to_running_to_done(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept(b"body")
    assert states(inbox) == {"queued": 1}
    record = take(inbox)
    assert (record.id, record.body, record.token, record.attempt) == (id, b"body", 1, 1)
    assert states(inbox) == {"running": 1}
    assignment = inbox.work("w", ended(record))
    assert (assignment.recorded, assignment.taken) == (True, None)
    assert states(inbox) == {"done": 1}
    assert inbox.stats().counts == {"deliveries:accepted": 1, "attempts:done": 1, "events:done": 1}
    assert inbox.redis.zcard("jobhook:open") == 0


def test_whoever_takes_an_event_and_leaves_others_in_line_wakes_the_next(
    inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P2: or one worker would do them all."""
    accept(b"one")
    accept(b"two")
    assert inbox.redis.lpop(WAKE)
    take(inbox)
    assert inbox.redis.lpop(WAKE)
    take(inbox)
    assert inbox.redis.llen(WAKE) == 0


def test_a_token_that_has_gone_with_its_worker_is_replaced_by_the_sweep(
    inbox: Inbox, accept: Callable[..., str]
) -> None:
    """P2: nobody else would wake anybody."""
    sweep(inbox)
    assert inbox.redis.llen(WAKE) == 0
    accept()
    assert inbox.redis.lpop(WAKE)
    sweep(inbox)
    assert inbox.redis.llen(WAKE) == 1


def test_the_end_of_one_and_the_start_of_the_next_share_a_round_trip(inbox: Inbox, accept: Callable[..., str]) -> None:
    accept(b"one")
    second = accept(b"two")
    assignment = inbox.work("w", ended(take(inbox)))
    assert assignment.recorded
    assert assignment.taken
    assert assignment.taken.id == second


def test_only_the_current_token_can_end_an_attempt(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P5: a worker that was stopped and resumed cannot overwrite."""
    accept()
    stale = take(inbox)
    age(inbox, "running", stale.id)
    sweep(inbox)
    sweep(inbox)
    current = take(inbox, "other")
    assert current.token == 2
    assert inbox.work("w", ended(stale, "dead"), want="").recorded is False
    assert inbox.record_step(stale.id, stale.token, "step", b"1") is False
    assert inbox.get(stale.id).state == "running"
    assert inbox.work("other", ended(current), want="").recorded is True


def test_an_end_that_is_reported_twice_is_recorded_once(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P5: as after a reply lost on the way."""
    accept()
    record = take(inbox)
    assert inbox.work("w", ended(record), want="").recorded is True
    assert inbox.work("w", ended(record), want="").recorded is True
    assert inbox.stats().counts["attempts:done"] == 1


def test_a_retry_waits_for_its_time(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept()
    inbox.work("w", ended(take(inbox), "retry", delay=60), want="")
    assert sweep(inbox) == (0, 0, 0, 0)
    assert inbox.work("w").taken is None
    age(inbox, "retrying", id)
    assert sweep(inbox) == (1, 0, 0, 0)
    assert take(inbox).attempt == 2


def test_a_lease_that_runs_out_is_found_by_the_sweep(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P2."""
    id = accept()
    take(inbox)
    age(inbox, "running", id)
    assert sweep(inbox)[1] == 1
    assert inbox.get(id).attempts[0]["outcome"] == "crashed"
    sweep(inbox)
    assert take(inbox).attempt == 2


def test_a_dead_workers_event_is_released_at_once(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P2."""
    id = accept(b"one")
    accept(b"two")
    take(inbox, "dies")
    other = take(inbox, "lives")
    assert inbox.release("dies", "It died.") == [id]
    assert inbox.get(id).attempts[0]["error"]["message"] == "It died."
    assert inbox.get(other.id).state == "running"


def test_an_event_that_always_kills_its_worker_is_dead_in_the_end(
    redis: "Redis", settings: Settings, accept: Callable[..., str]
) -> None:
    """P2."""
    inbox = Inbox(redis, settings.model_copy(update={"max_attempts": 3}))
    id = accept()
    for _ in range(3):
        take(inbox, "dies")
        inbox.release("dies", "It died.")
        if inbox.get(id).state == "retrying":
            age(inbox, "retrying", id)
            sweep(inbox)
    assert inbox.get(id).state == "dead"
    assert inbox.stats().counts["events:dead"] == 1


@pytest.mark.parametrize("backlog", [0, 50])
def test_a_lost_job_is_found_however_long_the_queue_is(inbox: Inbox, accept: Callable[..., str], backlog: int) -> None:
    """P2: popped by a worker that died, or the list was emptied."""
    lost = accept(b"lost")
    inbox.redis.lpop(LIST)
    for n in range(backlog):
        accept(b"%d" % n)
    age(inbox, "queued", lost)
    assert sweep(inbox)[2] == 1
    assert inbox.redis.lrange(LIST, -1, -1) == [lost.encode()]
    assert sweep(inbox)[2] == 0


def test_what_waits_in_line_is_not_taken_for_lost(inbox: Inbox, accept: Callable[..., str]) -> None:
    """A backlog of hours is not enqueued again."""
    ids = [accept(b"%d" % n) for n in range(20)]
    for position, id in enumerate(ids):
        inbox.redis.zadd("jobhook:queued", {id: position + 1})
    assert sweep(inbox)[2] == 0
    assert inbox.redis.llen(LIST) == 20


def test_what_waits_behind_a_backlog_from_before_the_clock_was_set_back_is_not_lost(
    inbox: Inbox, accept: Callable[..., str]
) -> None:
    backlog, later = [accept(b"%d" % n) for n in range(3)], accept(b"later")
    inbox.redis.zadd("jobhook:queued", dict.fromkeys(backlog, 10**14))
    age(inbox, "queued", later)
    assert sweep(inbox)[2] == 0
    assert [take(inbox, f"w{n}").id for n in range(4)] == [*backlog, later]


def test_an_index_deleted_by_hand_takes_no_event_with_it(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P2: what is in line is not dropped for that."""
    ids = [accept(b"%d" % n) for n in range(3)]
    inbox.redis.delete("jobhook:queued")
    assert sweep(inbox)[2] == 0
    assert [take(inbox, f"w{n}").id for n in range(3)] == ids


def test_an_emptied_list_is_filled_again_in_bounded_portions(redis: "Redis", inbox: Inbox, settings: Settings) -> None:
    """P2."""
    number = SWEEP_MOST + 5
    ids = [receipt.id for receipt in accept_all(settings, *(delivery(b"%d" % n) for n in range(number)))]
    redis.delete(LIST)
    redis.zadd("jobhook:queued", dict.fromkeys(ids, 1))
    assert sweep(inbox)[2] == SWEEP_MOST
    assert sweep(inbox)[2] == number - SWEEP_MOST
    assert sorted(redis.lrange(LIST, 0, -1)) == sorted(id.encode() for id in ids)


def test_jobs_without_work_are_dropped(inbox: Inbox, accept: Callable[..., str]) -> None:
    """A second instruction for an event does no harm."""
    id = accept()
    inbox.redis.rpush(LIST, id, id, "0" * 32)
    inbox.work("w", ended(take(inbox)), want="")
    assert inbox.work("w").taken is None
    assert inbox.redis.llen(LIST) == 0


def test_sweeps_are_shared_out_by_the_clock(inbox: Inbox) -> None:
    inbox.redis.delete("jobhook:swept")
    assert inbox.sweep()
    assert inbox.sweep() is None
    inbox.redis.set("jobhook:swept", 10**14)  # the clock was set back
    assert inbox.sweep()


def test_what_waits_does_not_wait_longer_when_the_clock_is_set_back(
    inbox: Inbox, accept: Callable[..., str], settings: Settings
) -> None:
    """P2: a retry comes when it would have come, and a lease is no longer than it was; one taken since stays."""
    for body in (b"retry", b"before", b"after"):
        accept(body)
    retried, before, after = take(inbox), take(inbox, "before"), take(inbox, "after")
    inbox.work("w", ended(retried, "retry", delay=5), want="")
    inbox.sweep()
    hour, lease = 3_600_000, (settings.handler_timeout + LEASE_MARGIN_SECONDS) * 1000
    inbox.redis.incrby("jobhook:swept", hour)
    inbox.redis.hincrby(f"jobhook:event:{before.id}", "started", hour)
    inbox.redis.zincrby("jobhook:retrying", hour, retried.id)
    inbox.redis.zincrby("jobhook:running", hour, before.id)
    assert inbox.sweep()
    seconds, microseconds = inbox.redis.time()
    now = seconds * 1000 + microseconds // 1000
    scores: Any = [
        inbox.redis.zscore("jobhook:retrying", retried.id),
        inbox.redis.zscore("jobhook:running", before.id),
        inbox.redis.zscore("jobhook:running", after.id),
    ]
    assert scores[0] <= now + 5000
    assert all(now < score <= now + lease for score in scores[1:])


def test_a_suspended_queue_gives_nothing_but_takes_ends(inbox: Inbox, accept: Callable[..., str]) -> None:
    accept(b"one")
    accept(b"two")
    record = take(inbox)
    inbox.redis.set("rq:suspended", 1)
    assignment = inbox.work("w", ended(record))
    assert (assignment.recorded, assignment.taken, assignment.suspended) == (True, None, True)


def test_finished_records_and_their_index_entries_go_after_the_retention(
    inbox: Inbox, accept: Callable[..., str]
) -> None:
    id = accept()
    inbox.work("w", ended(take(inbox)), want="")
    assert 0 < inbox.redis.ttl(f"jobhook:event:{id}") <= inbox.settings.retention
    assert sweep(inbox)[3] == 0
    age(inbox, "done", id)
    assert sweep(inbox)[3] == 1


def test_a_redelivery_after_the_retention_is_still_a_duplicate(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P4."""
    id = accept()
    inbox.work("w", ended(take(inbox)), want="")
    inbox.redis.delete(f"jobhook:event:{id}")
    accept()
    assert inbox.stats().counts["deliveries:duplicate"] == 1
    assert inbox.redis.exists(f"jobhook:event:{id}") == 0


def test_a_dead_event_forgotten_can_come_again(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P4: its marker does not outlive its record, or the redelivery would be swallowed."""
    id = accept()
    inbox.work("w", ended(take(inbox), "dead"), want="")
    marker, record = inbox.redis.ttl(f"jobhook:said:{id}"), inbox.redis.ttl(f"jobhook:event:{id}")
    assert marker <= record <= inbox.settings.retention


@pytest.mark.parametrize("body", [b"one", b"other"])
def test_an_event_open_for_longer_than_the_window_is_not_made_twice(
    inbox: Inbox, accept: Callable[..., str], body: bytes
) -> None:
    """P4: its marker is gone, its record tells."""
    id = accept(delivery(b"one", "evt"))
    for _ in range(2):
        inbox.redis.delete(f"jobhook:said:{id}")
        accept(delivery(body, "evt"))
    counts = inbox.stats().counts
    assert counts["deliveries:accepted"] == 1
    assert counts["deliveries:duplicate" if body == b"one" else "deliveries:conflict"] >= 1
    assert inbox.stats().states["queued"] == (1 if body == b"one" else 2)


def test_a_redelivery_revives_a_dead_event(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P4: with its finished steps kept, and all attempts before it."""
    id = accept()
    record = take(inbox)
    inbox.record_step(id, record.token, "step", b'"result"')
    inbox.work("w", ended(record, "dead"), want="")
    accept()
    assert inbox.stats().counts["deliveries:revived"] == 1
    again = take(inbox)
    assert (again.id, again.attempt, again.token) == (id, 1, 2)
    assert again.steps == (("step", "result"),)
    assert inbox.redis.ttl(f"jobhook:event:{id}") == -1


def test_a_replay_of_a_done_event_starts_anew(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept()
    record = take(inbox)
    inbox.record_step(id, record.token, "step", b"1")
    inbox.work("w", ended(record), want="")
    assert inbox.replay([id, "0" * 32]) == {id: "done", "0" * 32: None}
    again = take(inbox)
    assert (again.steps, again.attempt, again.token) == ((), 1, 2)
    inbox.work("w", ended(again), want="")


def test_a_revived_event_is_as_old_as_it_was(inbox: Inbox, accept: Callable[..., str]) -> None:
    """Its age counts from when it was received, for whoever watches the oldest open event."""
    id = accept()
    inbox.redis.hset(f"jobhook:event:{id}", "received", 1234)
    inbox.work("w", ended(take(inbox)), want="")
    inbox.replay([id])
    assert inbox.redis.zscore("jobhook:open", id) == 1234


def test_the_sweep_takes_an_instruction_without_work_away_whole(inbox: Inbox, accept: Callable[..., str]) -> None:
    """From the head of the list, and the RQ job with it, which has no time to live."""
    id = accept()
    inbox.work("w", ended(take(inbox)), want="")
    inbox.redis.rpush(LIST, id)
    inbox.redis.hset(f"rq:job:{id}", "status", "queued")
    sweep(inbox)
    assert inbox.redis.exists(LIST, f"rq:job:{id}") == 0


def test_an_uncounted_end_that_is_reported_twice_has_lost_no_lease(inbox: Inbox, accept: Callable[..., str]) -> None:
    """The reply to the first was lost: the worker must not be told that somebody else has the event."""
    accept()
    record = take(inbox)
    free = Ended(record.id, record.token, "retry", ATTEMPT, delay=60, uncounted=True)
    assert inbox.work("w", free, want="").recorded is True
    assert inbox.work("w", free, want="").recorded is True
    assert inbox.get(record.id).attempt == 0


def test_a_replay_brings_a_retry_forward_and_leaves_the_rest_alone(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept()
    assert inbox.replay([id]) == {id: "queued"}
    inbox.work("w", ended(take(inbox), "retry", delay=3600), want="")
    assert inbox.replay([id]) == {id: "retrying"}
    assert inbox.redis.llen(LIST) == 1
    take(inbox)
    assert inbox.replay([id]) == {id: "running"}
    assert states(inbox) == {"running": 1}


def test_records_are_found_by_the_first_digits(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept()
    assert inbox.find(id[:6]) == inbox.find(id) == id
    with pytest.raises(EventNotFound, match="No event begins"):
        inbox.find("zzz")
    accept(b"two")
    with pytest.raises(EventNotFound, match="2 events"):
        inbox.find("")
    with pytest.raises(EventNotFound, match="no record"):
        inbox.get("0" * 32)


def test_the_newest_come_first_over_all_pages(inbox: Inbox, accept: Callable[..., str]) -> None:
    ids = [accept(b"%d" % n) for n in range(7)]
    for position, id in enumerate(ids):
        inbox.redis.zadd("jobhook:queued", {id: position})
        inbox.redis.hset(f"jobhook:event:{id}", "received", position)
    assert [record.id for record in inbox.newest(page=3)] == ids[::-1]
    assert [record.id for record in inbox.newest(["dead"])] == []


def test_stats_tell_the_age_of_the_oldest_open_event(inbox: Inbox, accept: Callable[..., str]) -> None:
    assert inbox.stats().oldest_open_seconds == 0
    id = accept()
    inbox.redis.zincrby("jobhook:open", -5000, id)
    assert 5 <= inbox.stats().oldest_open_seconds < 60


@pytest.mark.parametrize("swept", [1, 2])
def test_a_late_end_counts_as_long_as_nobody_has_begun_anew(
    inbox: Inbox, accept: Callable[..., str], swept: int
) -> None:
    """P5: after an outage longer than the lease, what is done need not run again."""
    id = accept()
    record = take(inbox)
    age(inbox, "running", id)
    for _ in range(swept):  # retrying, then queued
        sweep(inbox)
    assert inbox.work("w", ended(record), want="").recorded is True
    assert states(inbox) == {"done": 1}
    assert inbox.work("w").taken is None


def test_a_take_whose_reply_was_lost_uses_up_no_attempt(inbox: Inbox, accept: Callable[..., str]) -> None:
    id = accept()
    take(inbox)
    assert inbox.release("w", "The reply was lost.", counts=False) == [id]
    sweep(inbox)
    record = take(inbox)
    assert (record.attempt, record.attempts) == (1, ())


def test_a_record_deleted_by_hand_does_not_stop_the_sweep(inbox: Inbox, accept: Callable[..., str]) -> None:
    """P2: for all the others."""
    gone, other = accept(b"gone"), accept(b"other")
    take(inbox)
    take(inbox)
    inbox.redis.delete(f"jobhook:event:{gone}")
    age(inbox, "running", gone, other)
    sweep(inbox)
    sweep(inbox)
    assert take(inbox).id == other
