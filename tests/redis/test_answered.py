"""What one run may not ask of the API, the next goes on with: the rate limit ends no handler's hope (P2, P5)."""

import os
import signal
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from app.simulator import CannedAnswer
from tests.support.deliveries import queue_events
from tests.support.inbox import age, pass_time, sweep, take
from tests.support.world import KINDS, Kind, World, world
from workers import AsyncJobsiteOn, Event, JobsiteOn, RetryAfter
from workers.jobsiteon import errors as api_errors
from workers.processor import Processor
from workers.registry import Registry

LIMIT, PAGES, MOST_RUNS = 20, 30, 6


@pytest.fixture
def jobsiteon(redis: "Redis", settings: Settings) -> Iterator[World]:
    """60 contacts, which are 30 pages; and a client that may send 20 requests a minute."""
    with world(settings, limit=10**6) as made:
        made.api.objects["contacts"] = {f"con_{n}": {"id": f"con_{n}"} for n in range(2 * PAGES)}
        made.settings = made.settings.model_copy(update={"api_rate_limit": LIMIT})
        yield made


class Runs:
    """The runs of one event's handlers, a minute after each other."""

    def __init__(self, redis: "Redis", jobsiteon: World) -> None:
        self.registry = Registry()
        self.jobsiteon = jobsiteon
        self.redis = redis
        self.inbox = Inbox(redis, jobsiteon.settings)

    def __call__(self, until: str = "done", most: int = MOST_RUNS, **settings: Any) -> tuple[int, Record]:
        """How many it took until the event was in a state, and its record."""
        self.inbox.settings = self.inbox.settings.model_copy(update=settings)
        (id,) = queue_events(self.inbox.settings, 1, "test.api")
        for run in range(1, most + 1):
            processor = Processor(self.inbox, self.registry)
            self.inbox.work("w", processor.process(take(self.inbox)), want="")
            processor.close()
            record = self.inbox.get(id)
            if record.state == until:
                return run, record
            for key in self.redis.scan_iter("jobhook:api:rate/*"):
                self.redis.delete(key)  # a minute has passed
            age(self.inbox, "retrying", id)
            pass_time(self.inbox, id, 0)
            sweep(self.inbox)
        raise AssertionError(record)


@pytest.fixture
def runs(redis: "Redis", jobsiteon: World) -> Runs:
    return Runs(redis, jobsiteon)


def collects(registry: Registry, kind: Kind, found: list[Any]) -> None:
    """A handler that reads the list of all contacts, and only then does something with it."""
    if kind == "sync":

        @registry.on("*", name="collect")
        def collect(_: Event, jobsiteon: JobsiteOn) -> None:
            found.append([contact["id"] for contact in jobsiteon.contacts.list()])
    else:

        @registry.on("*", name="collect")
        async def collect_async(_: Event, jobsiteon: AsyncJobsiteOn) -> None:
            found.append([contact["id"] async for contact in jobsiteon.contacts.list()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_longer_than_the_limit_ends(runs: Runs, kind: Kind, redis: "Redis") -> None:
    """30 pages, 20 requests a minute: two runs, no page twice, no attempt used up, and the list is whole."""
    found: list[Any] = []
    collects(runs.registry, kind, found)
    took, record = runs(max_attempts=1)
    assert took == 2
    assert found == [[f"con_{n}" for n in range(2 * PAGES)]]
    assert len(runs.jobsiteon.api.seen) == len({seen.query for seen in runs.jobsiteon.api.seen}) == PAGES
    assert [attempt["attempt"] for attempt in record.attempts] == [1]
    assert not redis.exists(f"jobhook:answers:{record.id}")


@pytest.mark.parametrize("paging", ["link", "url", "offset", "counted", "has_more"])
def test_so_does_one_in_another_form(runs: Runs, paging: Any) -> None:
    runs.jobsiteon.api.paging = paging
    found: list[Any] = []
    collects(runs.registry, "sync", found)
    assert runs()[0] == 2
    assert len(found[0]) == 2 * PAGES
    assert len(runs.jobsiteon.api.seen) == PAGES


def test_what_is_kept_expires_and_is_not_of_another_event(runs: Runs, redis: "Redis") -> None:
    collects(runs.registry, "sync", [])
    _, record = runs(until="retrying")
    assert 0 < redis.ttl(f"jobhook:answers:{record.id}") <= runs.inbox.settings.retry_for
    assert len(list(redis.scan_iter("jobhook:answers:*"))) == 1


def test_many_objects_and_several_lists(runs: Runs) -> None:
    """75 requests of different kinds in four minutes, each once."""
    found: list[Any] = []

    @runs.registry.on("*")
    def read(event: Event, jobsiteon: JobsiteOn) -> None:
        first = [contact["id"] for contact in jobsiteon.contacts.list()]
        one_by_one = [jobsiteon.contacts.get(id)["id"] for id in first[:15]]
        second = event.once("count", lambda _: len(list(jobsiteon.contacts.list())))
        found.append((len(first), one_by_one, second))

    took, _ = runs()
    assert took == 4
    assert found == [(2 * PAGES, [f"con_{n}" for n in range(15)], 2 * PAGES)]
    assert len(runs.jobsiteon.api.seen) == 2 * PAGES + 15


@pytest.mark.parametrize("kind", KINDS)
def test_no_write_that_was_answered_is_sent_again(runs: Runs, kind: Kind) -> None:
    """30 writes, some of them identical, and each is answered as it was the first time."""
    amounts = [str(number // 2) for number in range(PAGES)]
    made: list[Any] = []
    if kind == "sync":

        @runs.registry.on("*")
        def pay(_: Event, jobsiteon: JobsiteOn) -> None:
            made.append([jobsiteon.payments.create({"amount": amount})["id"] for amount in amounts])
    else:

        @runs.registry.on("*")
        async def pay_async(_: Event, jobsiteon: AsyncJobsiteOn) -> None:
            made.append([(await jobsiteon.payments.create({"amount": amount}))["id"] for amount in amounts])

    took, record = runs()
    sent = runs.jobsiteon.api.seen
    assert took == 2
    assert len(sent) == len({seen.idempotency_key for seen in sent}) == PAGES
    assert len(set(made[0])) == PAGES
    assert record.state == "done"


@pytest.mark.parametrize("failure", [ValueError(), RetryAfter(5), RetryAfter(5, counts=False)])
def test_nor_is_one_before_any_other_failure(runs: Runs, failure: Exception) -> None:
    """P5: JobsiteOn does not say whether it heeds idempotency keys, and two payments are one too many."""
    made: list[Any] = []

    @runs.registry.on("*")
    def pay(_: Event, jobsiteon: JobsiteOn) -> None:
        made.append(jobsiteon.payments.create({"amount": "1.00", "big": 2**70, "text": "\\ud800 é"}))
        if len(made) == 1:
            raise failure

    assert runs()[0] == 2
    assert made[0] == made[1]
    assert made[0]["big"] == 2**70
    assert len(runs.jobsiteon.api.seen) == 1


def test_one_that_was_not_answered_is_sent_again_with_its_key(runs: Runs) -> None:
    runs.jobsiteon.api.next_answers.append(CannedAnswer(500))

    @runs.registry.on("*")
    def pay(_: Event, jobsiteon: JobsiteOn) -> None:
        jobsiteon.payments.create({"amount": "1.00"})

    assert runs()[0] == 2
    first, second = runs.jobsiteon.api.seen
    assert first.idempotency_key == second.idempotency_key


def waits(_: int) -> Exception:
    return RetryAfter(5, counts=False)


def fails(_: int) -> Exception:
    return ValueError()


@pytest.mark.parametrize("failure", [waits, fails])
def test_a_handler_that_was_not_cut_short_reads_anew(runs: Runs, failure: Callable[[int], Exception]) -> None:
    """It may wait for just that change."""
    runs.jobsiteon.api.objects["contacts"] = {"con_0": {"id": "con_0", "turn": 0}}
    turns: list[int] = []

    @runs.registry.on("*")
    def poll(_: Event, jobsiteon: JobsiteOn) -> None:
        (contact,) = jobsiteon.contacts.list()
        turns.append(contact["turn"])
        runs.jobsiteon.api.objects["contacts"]["con_0"]["turn"] += 1
        if contact["turn"] < 2:
            raise failure(contact["turn"])

    assert runs()[0] == 3
    assert turns == [0, 1, 2]


def test_nor_does_one_go_on_that_has_failed_since(runs: Runs) -> None:
    """What was kept belongs to the attempt that was cut short."""
    whole: list[int] = []

    @runs.registry.on("*")
    def read(event: Event, jobsiteon: JobsiteOn) -> None:
        read = len(list(jobsiteon.contacts.list()))
        whole.append(read)
        if event.attempt == 1:
            raise ValueError

    assert runs()[0] == 4
    assert whole == [2 * PAGES] * 2
    assert len(runs.jobsiteon.api.seen) == 2 * PAGES


def test_nor_one_that_has_failed_before_it_could_read(runs: Runs) -> None:
    run = 0

    @runs.registry.on("*")
    def read(_: Event, jobsiteon: JobsiteOn) -> None:
        nonlocal run
        run += 1
        if run == 2:
            raise ValueError
        list(jobsiteon.contacts.list())

    assert runs()[0] == 4
    assert len(runs.jobsiteon.api.seen) == LIMIT + PAGES


@pytest.mark.parametrize("spoil", ["hset {key} collect x", "set {key} x"])
def test_what_is_spoiled_is_read_anew(runs: Runs, redis: "Redis", spoil: str) -> None:
    """No error but the API's own leaves the client."""
    found: list[Any] = []

    @runs.registry.on("*", name="collect")
    def collect(_: Event, jobsiteon: JobsiteOn) -> None:
        for key in redis.scan_iter("jobhook:answers:*"):
            redis.delete(key)
            redis.execute_command(*spoil.format(key=key.decode()).split())  # type: ignore[no-untyped-call]
        found.append(len(list(jobsiteon.contacts.list())))

    runs.jobsiteon.api.objects["contacts"] = {f"con_{n}": {"id": f"con_{n}"} for n in range(2 * LIMIT)}
    with JobsiteOn(runs.jobsiteon.settings) as another:
        another.contacts.get("con_1")
    assert runs()[0] == 2
    assert found == [2 * LIMIT]
    assert len(runs.jobsiteon.api.seen) == 1 + (LIMIT - 1) + LIMIT


def test_a_handler_that_changes_what_it_is_given_gets_it_unchanged(runs: Runs) -> None:
    @runs.registry.on("*")
    def read(_: Event, jobsiteon: JobsiteOn) -> None:
        for contact in jobsiteon.contacts.list():
            assert contact.pop("id")
            contact["changed"] = True

    assert runs()[0] == 2


def test_the_events_age_ends_it(runs: Runs) -> None:
    """Waits are free, but not for ever."""

    @runs.registry.on("*")
    def wait(_: Event, jobsiteon: JobsiteOn) -> None:
        runs.jobsiteon.api.next_answers += [CannedAnswer(429, b"", {"retry-after": "30"})]
        jobsiteon.contacts.get("con_1")

    (id,) = queue_events(runs.inbox.settings, 1, "test.api")
    for _ in range(20):
        runs.inbox.work("w", Processor(runs.inbox, runs.registry).process(take(runs.inbox)), want="")
        if runs.inbox.get(id).state == "dead":
            break
        runs.redis.delete(*runs.redis.keys("jobhook:api:*"))
        pass_time(runs.inbox, id, runs.inbox.settings.retry_for / 10)
        sweep(runs.inbox)
    record = runs.inbox.get(id)
    assert record.state == "dead"
    assert "JOBHOOK_RETRY_FOR" in record.attempts[-1]["error"]["given_up"]


def test_what_can_never_be_done_is_refused_in_words(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the limit in one run, and too much to be kept from one to the next."""
    monkeypatch.setattr("workers.answered.MOST_READ_BYTES", 300)
    collects(runs.registry, "sync", [])
    took, record = runs(until="dead")
    error = record.attempts[-1]["error"]
    assert took == 1
    assert error["type"] == "workers.jobsiteon.errors.TooMuch"
    assert "ask for less" in error["message"]


def test_too_much_to_be_kept_is_no_reason_if_others_have_taken_the_places(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.answered.MOST_READ_BYTES", 300)
    found: list[Any] = []
    collects(runs.registry, "sync", found)
    runs.jobsiteon.api.objects["contacts"] = {f"con_{n}": {"id": f"con_{n}"} for n in range(2 * LIMIT)}
    with JobsiteOn(runs.jobsiteon.settings) as another:
        another.contacts.get("con_1")
    assert runs()[0] == 2
    assert len(found[0]) == 2 * LIMIT


def test_a_redis_that_is_nearly_full_is_left_to_the_inbox(own_server: EmbeddedServer, jobsiteon: World) -> None:
    """P1: then the handler begins anew."""
    settings = jobsiteon.settings.model_copy(update={"redis_url": own_server.url})
    with connect(settings) as redis:
        runs = Runs(redis, jobsiteon)
        runs.inbox.settings = settings
        collects(runs.registry, "sync", [])
        redis.setrange("ballast", 16 * 1024**2, "x")
        redis.config_set("maxmemory", round(int(redis.info("memory")["used_memory"]) / 0.9))
        runs(until="retrying", most=1)
        assert not redis.keys("jobhook:answers:*")


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_ends_in_time_though_redis_hangs(
    own_server: EmbeddedServer, jobsiteon: World, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6 for handlers: each command of Redis has what is left of the call's time, not a time of its own."""
    monkeypatch.setattr("workers.jobsiteon.limits.REDIS_TIMEOUT_SECONDS", 60)
    client = jobsiteon.client(kind, redis_url=own_server.url, api_timeout=2.0)
    client.get("/contacts/con_1")
    calls: list[Callable[[], object]] = [
        lambda: client.get("/contacts/con_1"),
        lambda: client.create("/payments", {}),
    ]
    os.kill(own_server.pid, signal.SIGSTOP)
    try:
        for call in calls:
            begun = monotonic()
            with pytest.raises(api_errors.ApiError):
                call()
            assert monotonic() - begun < 30  # half of what one command would take, if it had its own time
    finally:
        os.kill(own_server.pid, signal.SIGCONT)
