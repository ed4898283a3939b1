"""Sentinel and replicas, with real servers: a primary killed, demoted or cut off, replicas down or frozen.

What a failover takes, in seconds, is recorded with the results (`--junit-xml`) and printed, not judged.
"""

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Timer
from time import monotonic
from typing import Any, NamedTuple

import httpx
import pytest
from redis.exceptions import RedisError

from app.cli.embedded import DURABLE, HOST, EmbeddedServer, free_port
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.ops.health import check
from app.receiver.intake import Intake
from app.receiver.refusals import Unavailable
from app.store.connections import connect_async
from tests.support import PATIENCE_SECONDS, wait_until
from tests.support.deliveries import accept_all, accept_patiently, delivery, run
from tests.support.processes import frozen
from tests.support.sentinel import (
    FAST_SYNC,
    SERVICE,
    SentinelTopology,
    ask,
    cut_off,
    follow,
    in_step,
    replicates,
    role,
    start_sentinel,
)
from tests.support.stack import ROOT, Stack, make_settings
from workers.jobsiteon.limits import RateLimit

SENDERS = 2
PAUSE_SECONDS = 0.02
MOST_DELIVERIES = 4000
QUIET_TYPE = "test.quiet"
"""Its handler has nothing to do with Redis, and so does not fail with it."""
SHORT_BUDGET_SECONDS = 0.5
STRAGGLERS_SECONDS = 0.3
"""Answers that were on their way when the primary failed."""
STRIKE_SECONDS = 0.3
SENTINEL_PASSWORD = "password-of-the-sentinels"


class Pair(NamedTuple):
    """A primary and its replica, without sentinels."""

    primary: EmbeddedServer
    replica: EmbeddedServer

    @property
    def settings(self) -> Settings:
        return make_settings(self.primary.url, durability="replica")

    def wait_until_in_step(self) -> None:
        wait_until(lambda: replicates(self.replica) and in_step(self.primary), "the replica to be in step")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    primary = EmbeddedServer(tmp_path / "primary", *DURABLE, *FAST_SYNC)
    replica = EmbeddedServer(tmp_path / "replica", *DURABLE, "--replicaof", f"{HOST} {primary.port}")
    made = Pair(primary, replica)
    try:
        primary.start()
        replica.start()
        made.wait_until_in_step()
        yield made
    finally:
        primary.kill()
        replica.kill()


class Stream:
    """Deliveries sent one after the other by a few senders, until told to stop or there are enough."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopped = Flag()
        self._pool = ThreadPoolExecutor(SENDERS)
        self.acknowledged: list[tuple[float, str]] = []
        """When the 200 came, by the monotonic clock, and of which event."""
        self.refused = 0

    def __enter__(self) -> "Stream":
        self._senders = [self._pool.submit(self._send, n) for n in range(SENDERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown()
        for sender in self._senders:
            sender.result()

    def wait_for(self, number: int) -> None:
        """Until so many more are acknowledged."""
        enough = len(self.acknowledged) + number
        wait_until(lambda: len(self.acknowledged) >= enough, f"{enough} acknowledged, {self.refused} refused")

    def _send(self, sender: int) -> None:
        for n in range(MOST_DELIVERIES // SENDERS):
            if self._stopped.wait(PAUSE_SECONDS):
                return
            answer = self._stack.deliver({"id": f"evt_{sender}_{n}", "type": QUIET_TYPE, "data": {}})
            assert answer.status_code in {200, 503}, answer.text
            if answer.is_success:
                self.acknowledged.append((monotonic(), answer.json()["id"]))
            else:
                self.refused += 1


class Failover(NamedTuple):
    """What a failover under a stream of deliveries cost."""

    acknowledged: set[str]
    lost: set[str]
    refused: int
    seconds: dict[str, float]


Fail = Callable[[SentinelTopology], Iterator[EmbeddedServer]]


def crash(topology: SentinelTopology) -> Iterator[EmbeddedServer]:
    """The primary is gone, and its connections are closed."""
    yield topology.kill_primary()


def hang(topology: SentinelTopology) -> Iterator[EmbeddedServer]:
    """It is still there but silent, as after a loss of power or in a partition: connections are not closed."""
    with frozen(topology.primary.pid):
        yield topology.primary


def fail_over(topology: SentinelTopology, stack: Stack, fail: Fail) -> Failover:
    """Takes the primary away while deliveries come in and are worked on."""
    with ExitStack() as until_done:
        with Stream(stack) as stream:
            stream.wait_for(50)
            failed = monotonic()
            promoted = topology.wait_for_promotion(until_done.enter_context(contextmanager(fail)(topology)))
            seconds = {"promoted": monotonic() - failed}
            stream.wait_for(20)
        assert promoted.port != topology.first.port
        stack.redis.connection_pool.disconnect()
        first, id = min(one for one in stream.acknowledged if one[0] > failed + STRAGGLERS_SECONDS)
        stack.wait_for(id, "done")
        seconds |= {"first 200": first - failed, "first done": monotonic() - failed}
    ids = {id for _, id in stream.acknowledged}
    lost = {id for id in ids if not stack.redis.exists(f"jobhook:event:{id}")}
    for id in ids - lost:
        stack.wait_for(id, "done")
    return Failover(ids, lost, stream.refused, seconds)


@pytest.mark.parametrize("fail", [crash, hang])
def test_what_was_acknowledged_at_replica_outlives_the_primary(
    fail: Fail,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """P1, P2: also without the primary's disk; receiver and workers find the new one by themselves."""
    with (
        SentinelTopology(tmp_path / "topology", replicas=2) as topology,
        Stack(tmp_path, topology.url, JOBHOOK_DURABILITY="replica") as stack,
    ):
        receiver = stack.start_receiver()
        supervisor = stack.start_workers(2)
        cost = fail_over(topology, stack, fail)
        for name, value in cost.seconds.items():
            record_property(name, round(value, 2))
        print(cost.seconds, len(cost.acknowledged), "acknowledged", cost.refused, "refused")  # noqa: T201
        assert cost.lost == set()
        assert receiver.poll() is supervisor.poll() is None
        assert "Traceback" not in stack.logs()


def test_a_killed_primary_comes_back_as_a_replica_and_counts_again(tmp_path: Path) -> None:
    """P1, P6: alone, the promoted server acknowledges nothing at `replica`; in a pair again, it does."""
    with SentinelTopology(tmp_path) as topology:
        settings = make_settings(topology.url, durability="replica")

        async def use(intake: Intake) -> None:
            await intake.accept(delivery(b"before"))
            old = topology.kill_primary()
            promoted = topology.wait_for_promotion(old)
            with pytest.raises(Unavailable):
                await intake.accept(delivery(b"alone"))
            topology.start_again(old)
            wait_until(lambda: in_step(promoted), "the old primary to be in step")
            assert (await intake.accept(delivery(b"after"))).status == "accepted"

        run(settings, use)
        with connect(settings) as redis:
            assert {record.body for record in Inbox(redis, settings).newest()} >= {b"before", b"after"}


def test_a_primary_demoted_while_it_lives_is_left(tmp_path: Path) -> None:
    """P1, P6: its clients are connected to it, and it would still answer them."""
    with SentinelTopology(tmp_path) as topology:
        settings = make_settings(topology.url)
        with connect(settings) as redis:
            inbox = Inbox(redis, settings)

            async def use(intake: Intake) -> None:
                await intake.accept(delivery(b"before"))
                assert inbox.stats().states["queued"] == 1
                promoted = topology.wait_for_promotion(topology.demote_primary())
                follow(topology.first, promoted)  # the sentinels would, some seconds later, and cut its clients off
                assert role(topology.first) == "slave"
                await accept_patiently(intake, delivery(b"after"))

            run(settings, use)
            wait_until(lambda: swept(inbox), "a sweep of the new primary")
            assert {record.body for record in inbox.newest()} == {b"before", b"after"}


def swept(inbox: Inbox) -> bool:
    """A sweep writes: on a replica it fails, and the supervisor tries again."""
    try:
        return inbox.sweep() is not None
    except RedisError:
        return False


@pytest.fixture(scope="module")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelTopology]:
    """For tests that leave the primary as it is."""
    with SentinelTopology(tmp_path_factory.mktemp("topology"), sentinel_password=SENTINEL_PASSWORD) as running:
        yield running


@pytest.mark.parametrize("frozen_sentinels", [1, 2])
def test_sentinels_that_do_not_answer_leave_time_to_record(topology: SentinelTopology, frozen_sentinels: int) -> None:
    """P6: neither do they eat the ack budget, nor a worker's time."""
    settings = make_settings(topology.url, durability="replica")
    with topology.without_sentinels(frozen_sentinels):
        assert accept_all(settings, delivery(b"%d" % frozen_sentinels))[0].status == "accepted"
        with connect(settings) as redis:
            assert redis.ping()


def test_without_any_sentinel_those_connected_go_on_and_others_are_told_in_time(topology: SentinelTopology) -> None:
    """P6."""
    settings = make_settings(topology.url)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"connects"))
        with topology.without_sentinels():
            await intake.accept(delivery(b"goes on"))
            other = Intake(settings.model_copy(update={"ack_budget": SHORT_BUDGET_SECONDS}))
            try:
                await refused_in_time(other, SHORT_BUDGET_SECONDS)
            finally:
                await other.close()

    run(settings, use)


@pytest.mark.parametrize("wrong", ["/no-such-service", "/jobhook-tests?sentinel_password=wrong-password"])
def test_what_is_wrong_with_the_sentinels_is_told(topology: SentinelTopology, wrong: str) -> None:
    """P7: without the password."""
    settings = make_settings(topology.url.rpartition("/")[0] + wrong)
    with connect(settings) as redis:
        (finding,) = check(settings, redis)
    assert finding.finding == "has no primary that a sentinel names (MasterNotFoundError)"
    assert "sentinels in REDIS_URL" in str(finding.remedy)
    assert "password" not in repr(finding)


def test_at_fsync_a_failover_may_lose_events_and_doctor_says_so(topology: SentinelTopology) -> None:
    """P1."""
    for durability, level in (("memory", "warn"), ("fsync", "warn"), ("replica", "ok")):
        settings = make_settings(topology.url, durability=durability)
        with connect(settings) as redis:
            found = {finding.name: finding for finding in check(settings, redis)}["durability"]
        assert found.level == level
    settings = make_settings(topology.url)
    with connect(settings) as redis:
        found = {finding.name: finding for finding in check(settings, redis)}["durability"]
    assert found.finding == "fsync: a failover may lose acknowledged events"
    assert "JOBHOOK_DURABILITY=replica" in str(found.remedy)


def test_the_api_client_counts_and_caches_through_sentinel(topology: SentinelTopology) -> None:
    settings = make_settings(topology.url, api_rate_limit=1)
    limit = RateLimit(settings, "key-of-this-test")
    assert limit.wait() == 0
    assert limit.wait() > 0
    limit.close()

    async def read_and_write() -> bytes | str | None:
        client = connect_async(topology.url, timeout=PATIENCE_SECONDS, connect_timeout=PATIENCE_SECONDS)
        await client.set("cached", b"answer", ex=60)
        value = await client.get("cached")
        await client.aclose()
        return value

    assert asyncio.run(read_and_write()) == b"answer"


class Struck(BaseException):
    """What a signal's handler raises, as RQ's does to stop a worker that waits."""


def test_a_command_cut_short_leaves_no_answer_to_the_next(topology: SentinelTopology) -> None:
    """P2: a worker is stopped, or a handler's time is up, in the middle of any command."""

    def strike(*_: object) -> None:
        raise Struck

    previous = signal.signal(signal.SIGUSR1, strike)
    try:
        with connect(make_settings(topology.url)) as redis:
            redis.ping()
            timer = Timer(STRIKE_SECONDS, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Struck):
                redis.blpop(["nothing"], timeout=1)
            timer.join()
            assert redis.echo("its own answer") == b"its own answer"
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_command_tried_again_asks_for_the_primary_anew(
    topology: SentinelTopology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: the one it was sent to first may be the primary no more."""
    settings = make_settings(topology.url)
    with connect(settings) as redis, connect(settings) as other:
        redis.ping()
        id, asked = redis.client_id(), spy(redis.connection_pool, monkeypatch)
        timer = Timer(STRIKE_SECONDS, other.client_kill_filter, kwargs={"_id": str(id)})
        timer.start()
        assert redis.blpop(["nothing"], timeout=1) is None
        timer.join()
        assert asked == [SERVICE]


def test_an_asyncio_command_tried_again_asks_for_the_primary_anew(
    topology: SentinelTopology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: a delivery is not refused for a connection that has just been closed."""

    async def use() -> list[str]:
        client: Any = connect_async(topology.url, timeout=None, connect_timeout=PATIENCE_SECONDS)
        with connect(make_settings(topology.url)) as other:
            id, asked = await client.client_id(), spy(client.connection_pool, monkeypatch)
            waiting = asyncio.create_task(client.blpop(["nothing"], timeout=1))
            await asyncio.wait({waiting}, timeout=STRIKE_SECONDS)
            other.client_kill_filter(_id=str(id))
            assert await waiting is None
        await client.aclose()
        return asked

    assert asyncio.run(use()) == [SERVICE]


def spy(pool: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which services the sentinels are asked for from now on."""
    asked: list[str] = []
    discover = pool.sentinel_manager.discover_master

    def ask_and_note(service: str) -> Any:
        asked.append(service)
        return discover(service)

    monkeypatch.setattr(pool.sentinel_manager, "discover_master", ask_and_note)
    return asked


# --- What deploy/README.md tells to set


def test_a_sentinel_runs_on_the_file_in_deploy(tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text((ROOT / "deploy" / "sentinel.conf").read_text() + f"port {port}\nbind {HOST}\n")
    sentinel = start_sentinel(configuration)
    try:
        state = wait_until(lambda: ask(port, "SENTINEL MASTER", "jobhook"), "the sentinel")
        assert state["down-after-milliseconds"] == 5000
    finally:
        sentinel.kill()
        sentinel.wait()


def test_a_primary_with_the_settings_in_deploy_takes_nothing_without_a_replica(tmp_path: Path) -> None:
    """P1: at no level, so that what a failover would drop is not acknowledged."""
    (block,) = re.findall(r"```\n(appendonly yes\n.*?)```", (ROOT / "deploy" / "README.md").read_text(), re.DOTALL)
    lines = [line.split() for line in block.splitlines() if not line.startswith("#")]
    options = [part for name, value in lines for part in (f"--{name}", value)]
    with EmbeddedServer(tmp_path / "server", *options) as alone:
        for durability in ("memory", "fsync", "replica"):
            with pytest.raises(Unavailable):
                accept_all(make_settings(alone.url, durability=durability), delivery(b"one"))


# --- A primary and its replica


def test_without_its_replica_nothing_is_acknowledged_at_replica(pair: Pair, tmp_path: Path) -> None:
    """P1, P6: at once, after the first that waits; and readyz says it too."""
    with Stack(tmp_path, pair.primary.url, JOBHOOK_DURABILITY="replica") as stack:
        stack.start_receiver()
        stack.deliver_event("test.ok", "evt_1")
        pair.replica.kill()
        for n in (2, 3):
            assert stack.deliver({"id": f"evt_{n}", "type": "test.ok", "data": {}}).status_code == 503
        assert accept_all(make_settings(pair.primary.url), delivery(b"at fsync"))[0].status == "accepted"
        ready = httpx.get(f"http://127.0.0.1:{stack.port}/readyz", timeout=PATIENCE_SECONDS)
        assert ready.status_code == 503
        assert [p["finding"] for p in ready.json()["problems"] if p["level"] == "fail"] == ["replica is not possible"]
        pair.replica.start()
        pair.wait_until_in_step()
        again = stack.deliver({"id": "evt_2", "type": "test.ok", "data": {}})
        assert (again.status_code, again.json()["status"]) == (200, "duplicate")


def test_a_frozen_replica_is_given_up_in_time_and_works_again_afterwards(pair: Pair) -> None:
    """P6: it is still connected, so that only waiting tells."""
    settings = pair.settings.model_copy(update={"ack_budget": SHORT_BUDGET_SECONDS})

    async def use(intake: Intake) -> None:
        await accept_patiently(intake, delivery(b"before"))
        with frozen(pair.replica.pid):
            await refused_in_time(intake, SHORT_BUDGET_SECONDS)
        pair.wait_until_in_step()
        assert (await accept_patiently(intake, delivery(b"after"))).status in {"accepted", "duplicate"}

    run(settings, use)


async def refused_in_time(intake: Intake, budget: float) -> None:
    """By the loop's own clock: the deadline decides, not the machine's speed."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(Unavailable):
        await intake.accept(delivery(b"in vain"))
    assert loop.time() - begun < 2 * budget


def test_a_primary_that_was_replaced_unknowingly_acknowledges_nothing_at_replica(pair: Pair) -> None:
    """P1: cut off from everything but its clients, it takes itself for the primary; at `fsync` they believe it."""

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        cut_off(pair.replica)
        assert role(pair.primary) == role(pair.replica) == "master"
        for body in (b"stale", b"stale again"):
            with pytest.raises(Unavailable):
                await intake.accept(delivery(body))

    run(pair.settings, use)
    assert accept_all(make_settings(pair.primary.url), delivery(b"lost"))[0].status == "accepted"


def test_what_is_acknowledged_is_on_the_replicas_disk(pair: Pair) -> None:
    """P1: both servers crash, and the primary's disk is gone."""
    bodies = {b"%d" % n for n in range(300)}
    accept_all(pair.settings, *map(delivery, bodies))
    pair.primary.kill()
    pair.replica.kill()
    pair.replica.start()
    settings = make_settings(pair.replica.url)
    with connect(settings) as redis:
        assert {record.body for record in Inbox(redis, settings).newest()} == bodies


def test_a_replica_that_writes_no_file_confirms_nothing(tmp_path: Path, pair: Pair) -> None:
    """P1: it has it in memory only."""
    with connect(make_settings(pair.replica.url)) as redis:
        redis.config_set("appendonly", "no")
    with pytest.raises(Unavailable):
        accept_all(pair.settings, delivery(b"one"))


@pytest.mark.usefixtures("redis_7_0")
def test_redis_7_0_waits_for_a_replicas_memory(request: pytest.FixtureRequest) -> None:
    """P1, P6: which a frozen replica does not confirm."""
    pair: Pair = request.getfixturevalue("pair")  # after the other fixture, so that it is of 7.0

    async def use(intake: Intake) -> None:
        assert (await intake.accept(delivery(b"one"))).status == "accepted"
        with frozen(pair.replica.pid):
            await refused_in_time(intake, pair.settings.ack_budget)

    run(pair.settings, use)
    pair.primary.kill()
    with connect(make_settings(pair.replica.url)) as redis:
        assert redis.zcard("jobhook:open") >= 1
