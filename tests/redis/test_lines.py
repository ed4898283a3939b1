"""The receiver's connections: opened, examined and replaced apart from any delivery, each with a plan of its own."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from app.cli.embedded import DURABLE, EmbeddedServer
from app.inbox import schema
from app.inbox.inbox import connect
from app.receiver import intake as intake_module
from app.receiver.intake import Intake
from app.receiver.refusals import Unavailable
from app.store.connections import connect_async, pool_of_pipes
from app.store.pipe import Pipe
from tests.support import wait_until
from tests.support.deliveries import accept_all, accept_patiently, delivery, run
from tests.support.inbox import calls
from tests.support.processes import frozen
from tests.support.proxy import Link, Proxy, proxied
from tests.support.stack import make_settings

SHORT_BUDGET_SECONDS = 0.3
FORGOTTEN_AFTER_SECONDS = 0.4
IDLE_SECONDS = 0.1
"""Instead of the real ones, so that nothing takes long."""

Net = Proxy[Link]


def through(server: EmbeddedServer, use: Callable[[Intake, Net], Awaitable[object]], **behaviour: Any) -> None:
    """Uses an intake that reaches the server by a proxy."""
    budget = behaviour.pop("ack_budget", make_settings(server.url).ack_budget)

    async def session() -> None:
        async with Proxy[Link](server.port, **behaviour) as proxy:
            intake = Intake(make_settings(proxy.url, ack_budget=budget))
            try:
                await use(intake, proxy)
            finally:
                await intake.close()

    asyncio.run(session())


# --- Overload


def test_under_overload_as_much_is_accepted_as_can_be(
    redis: "Redis", server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: at 4 × capacity, (almost) every place in every batch goes to a delivery that is answered in time.

    Counted by the server, so that it makes no difference how fast the machine is.
    """
    most, round_trip, budget, seconds = 4, 0.02, 0.8, 2.5
    monkeypatch.setattr(intake_module, "MAX_BATCH", most)
    pause = round_trip / (4 * 2 * most)  # two batches are on their way at once

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.start()
        opened, batches = proxy.connections, calls(redis, "evalsha")
        loop = asyncio.get_running_loop()
        begun, tasks = loop.time(), list[asyncio.Task[Any]]()
        while loop.time() < begun + seconds:
            due = (loop.time() - begun) / pause
            tasks += [asyncio.create_task(intake.accept(delivery(b"%d" % n))) for n in range(len(tasks), int(due))]
            await asyncio.sleep(round_trip / 10)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        accepted = sum(not isinstance(answer, Unavailable) for answer in answers)
        sent = calls(redis, "evalsha") - batches
        assert sent * most < len(tasks) / 2, "no overload"
        assert accepted >= 0.9 * sent * most
        assert proxy.connections - opened <= sent / 20  # a machine that stands still may cost one

    through(server, use, delay=round_trip, ack_budget=budget)


def test_what_is_too_late_is_not_sent(redis: "Redis", server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: nobody waits any more for the answer to it, and it would only keep the others waiting."""
    monkeypatch.setattr(intake_module, "MAX_BATCH", 1)

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.start()
        await proxy.hold(True)
        deliveries = [delivery(body) for body in (b"stuck", b"stuck too", *(b"waits %d" % n for n in range(10)))]
        answers = await asyncio.gather(*map(intake.accept, deliveries), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Unavailable] * len(deliveries)
        await proxy.hold(False)
        await accept_patiently(intake, delivery(b"after"))

    through(server, use, ack_budget=SHORT_BUDGET_SECONDS)
    bodies: set[Any] = {redis.hget(key, "body") for key in redis.scan_iter("jobhook:event:*")}
    assert b"after" in bodies
    assert bodies <= {b"after", b"stuck", b"stuck too"}


def test_a_delivery_has_its_own_deadline_whatever_it_is_sent_with(
    redis: "Redis", server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: its batch has the whole budget from when it is sent, also with one in it that has waited for long."""
    budget = 1.0
    monkeypatch.setattr("app.store.lines.LONGEST_WAIT_SECONDS", budget)  # only two batches are on their way at once

    async def use(intake: Intake, _: Net) -> None:
        await intake.start()
        tasks = []
        for body in (b"sent", b"sent too", b"waits for long", *(b"waits for less %d" % n for n in range(5))):
            tasks.append(asyncio.create_task(intake.accept(delivery(body))))
            await asyncio.wait(tasks, timeout=0.1 * budget if len(tasks) > 2 else 0)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers[2], Unavailable)
        assert not any(isinstance(answer, Unavailable) for answer in answers[-2:])

    through(server, use, delay=0.6 * budget, ack_budget=budget)


def test_a_late_reply_costs_only_its_own_line(redis: "Redis", server: EmbeddedServer) -> None:
    """P6: the others keep their connections and plans, and the spare one takes its place at once."""

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.start()
        opened = proxy.connections
        (used,) = await used_by(proxy, intake, b"before")
        others = proxy.links - {used}
        used.forgotten = True
        with pytest.raises(Unavailable):
            await intake.accept(delivery(b"in vain"))
        assert (await intake.accept(delivery(b"at once"))).status == "accepted"
        assert others <= proxy.links
        assert proxy.connections - opened <= 1

    through(server, use, ack_budget=SHORT_BUDGET_SECONDS)


async def used_by(proxy: Net, intake: Intake, body: bytes) -> set[Link]:
    """The connections on which a delivery has gone out: the one that is used next, too."""
    before = {link: link.heard for link in proxy.links}
    await intake.accept(delivery(body))
    return {link for link in proxy.links if link.heard != before.get(link, link.heard)}


# --- Far away


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4, 0.8])
def test_a_start_far_away_from_redis_works(redis: "Redis", server: EmbeddedServer, share: float) -> None:
    """P6: a round trip may take most of the budget, because a delivery takes one and connecting takes none of it."""
    budget = make_settings(server.url).ack_budget

    async def use(intake: Intake, _: Net) -> None:
        await intake.start()
        assert (await intake.accept(delivery(b"first"))).status == "accepted"
        answers = await asyncio.gather(*(intake.accept(delivery(b"%d" % n)) for n in range(50)))
        assert {answer.status for answer in answers} == {"accepted"}

    redis.script_flush()
    through(server, use, delay=share * budget)


def test_deliveries_that_find_no_connection_do_not_end_the_opening_of_one(
    redis: "Redis", server: EmbeddedServer
) -> None:
    """P6: they are refused, and those that come later are not."""

    async def use(intake: Intake, _: Net) -> None:
        with pytest.raises(Unavailable):  # to open a connection and to record takes two round trips
            await intake.accept(delivery(b"first"))
        await accept_patiently(intake, delivery(b"later"))

    through(server, use, delay=0.7 * SHORT_BUDGET_SECONDS, ack_budget=SHORT_BUDGET_SECONDS)


def test_too_far_away_is_an_honest_refusal(server: EmbeddedServer) -> None:
    """P6, P9."""

    async def use(intake: Intake, proxy: Net) -> None:
        with capture_logs() as logs:
            await intake.start()
            for n in range(3):
                with pytest.raises(Unavailable):
                    await intake.accept(delivery(b"%d" % n))
        assert {log.get("remedy") for log in logs} == {"move Redis nearer, or raise JOBHOOK_ACK_BUDGET"}
        assert len(logs) == 1, "told once"

    through(server, use, delay=2 * SHORT_BUDGET_SECONDS, ack_budget=SHORT_BUDGET_SECONDS)


# --- Idle connections that are forgotten on the way


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are idle for long after a moment already."""
    monkeypatch.setattr("app.store.lines.IDLE_SECONDS", IDLE_SECONDS)
    monkeypatch.setattr("app.store.pools.IDLE_SECONDS", IDLE_SECONDS)


@pytest.mark.usefixtures("hasty")
def test_idle_lines_are_kept_in_mind_on_the_way(redis: "Redis", server: EmbeddedServer) -> None:
    """P6: no delivery is refused for a connection that a NAT or a load balancer has forgotten."""

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.start()
        opened = proxy.connections
        for n in range(3):
            assert (await intake.accept(delivery(b"%d" % n))).status == "accepted"
            await asyncio.sleep(2 * FORGOTTEN_AFTER_SECONDS)
        assert proxy.connections == opened

    through(server, use, forgets_after=FORGOTTEN_AFTER_SECONDS)


@pytest.mark.usefixtures("hasty")
def test_a_process_that_has_stood_still_trusts_none_of_its_lines(redis: "Redis", server: EmbeddedServer) -> None:
    """P6: meanwhile they may have been forgotten; opening new ones takes nearly no time."""

    async def use(intake: Intake) -> None:
        await intake.start()
        proxy.forget()
        stand_still(3 * IDLE_SECONDS)
        assert (await intake.accept(delivery(b"one"))).status == "accepted"

    with proxied(server.port) as proxy:
        run(make_settings(proxy.url), use)


def stand_still(seconds: float) -> None:
    until = monotonic() + seconds
    wait_until(lambda: monotonic() > until)


@pytest.mark.usefixtures("hasty")
def test_a_client_uses_no_connection_that_may_be_forgotten(server: EmbeddedServer) -> None:
    """P6: it would wait for an answer until its time-out."""
    with proxied(server.port, forgets_after=FORGOTTEN_AFTER_SECONDS) as proxy:
        with connect(make_settings(proxy.url), retries=0) as redis:
            for _ in range(3):
                assert redis.ping()
                stand_still(2 * FORGOTTEN_AFTER_SECONDS)
            redis.ping()
            redis.ping()
            assert proxy.connections == 4

        async def use() -> None:
            client = connect_async(proxy.url, timeout=2.0, connect_timeout=2.0, retries=0)
            for _ in range(3):
                await client.set("key", 1)
                await asyncio.sleep(2 * FORGOTTEN_AFTER_SECONDS)
            await client.delete("key")
            await client.aclose()

        asyncio.run(use())
        assert proxy.connections == 8


def sockets(url: str) -> Iterator[socket.socket]:
    """Those of each kind of client."""
    with connect(make_settings(url)) as redis:
        connection = redis.connection_pool.get_connection()
        yield connection._sock
        redis.connection_pool.release(connection)

    async def open_both() -> list[socket.socket]:
        client: Any = connect_async(url, timeout=2.0, connect_timeout=2.0)
        pipe: Any = Pipe(pool_of_pipes(url, connect_timeout=2.0))
        await pipe.connect()
        connection = await client.connection_pool.get_connection()
        writers = [pipe._connection._writer, connection._writer]
        copies = [writer.get_extra_info("socket").dup() for writer in writers]
        pipe.close()
        await client.connection_pool.release(connection)
        await client.aclose()
        return copies

    for copy in asyncio.run(open_both()):
        with copy:
            yield copy


def test_tcp_keepalive_is_on_everywhere(server: EmbeddedServer) -> None:
    """So that both ends notice when the other is gone, also while a worker waits for an event."""
    found = [
        (
            connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        )
        for connected in sockets(server.url)
    ]
    assert len(found) == 3
    for on, idle, interval, count in found:
        assert on
        assert idle + interval * count <= 60


def test_a_unix_socket_does_too(tmp_path: Path) -> None:
    path = f"/tmp/jobhook-{tmp_path.name[-20:]}.sock"  # noqa: S108 - a path under tmp_path may be too long for one
    with EmbeddedServer(tmp_path / "valkey", *DURABLE, "--unixsocket", path):
        settings = make_settings(f"unix://{path}?db=0")
        assert accept_all(settings, delivery(b"one"))[0].status == "accepted"
        assert {connected.family for connected in sockets(settings.redis_url)} == {socket.AF_UNIX}


# --- Plans


EVICTS = "`maxmemory-policy {}` may throw events away: set `maxmemory-policy noeviction`"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
@pytest.mark.parametrize("durability", ["memory", "fsync"])
def test_a_server_that_may_evict_gets_nothing(own_server: EmbeddedServer, policy: str, durability: str) -> None:
    """P1, P2."""
    settings = make_settings(own_server.url, durability=durability)
    with connect(settings) as redis, capture_logs() as logs:
        redis.config_set("maxmemory-policy", policy)
        with pytest.raises(Unavailable):
            accept_all(settings, delivery(b"one"))
        assert redis.keys("*") == []
    assert [log["remedy"] for log in logs if "remedy" in log] == [EVICTS.format(policy)]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("busy", [True, False])
def test_a_server_set_to_evict_while_it_is_used_is_noticed(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """P2: by an idle line, or by one in use whose plan is old."""
    monkeypatch.setattr("app.store.lines.PLAN_SECONDS", IDLE_SECONDS if busy else 3600)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with connect(settings) as redis:
            redis.config_set("maxmemory-policy", "allkeys-lru")
        await refused_soon(intake, pause=0 if busy else 2 * IDLE_SECONDS)
        with connect(settings) as redis:
            redis.config_set("maxmemory-policy", "noeviction")
        assert (await accept_patiently(intake, delivery(b"after"))).status == "accepted"

    settings = make_settings(own_server.url)
    run(settings, use)


async def refused_soon(intake: Intake, pause: float) -> None:
    for n in range(100_000):
        try:
            await intake.accept(delivery(b"%d" % n))
        except Unavailable:
            return
        await asyncio.sleep(pause)
    raise AssertionError("never refused")


@pytest.mark.usefixtures("hasty")
def test_records_of_a_version_that_is_not_known_get_no_more(own_server: EmbeddedServer) -> None:
    """P2: also when a newer Jobhook has taken them over meanwhile."""

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with connect(settings) as redis, capture_logs() as logs:
            redis.set(schema.KEY, schema.VERSION + 1)
            await refused_soon(intake, pause=2 * IDLE_SECONDS)
            assert any("upgrade this process" in log.get("remedy", "") for log in logs)
            redis.set(schema.KEY, schema.VERSION)
        assert (await accept_patiently(intake, delivery(b"after"))).status == "accepted"

    settings = make_settings(own_server.url)
    run(settings, use)


@pytest.mark.parametrize("options", [("--maxmemory-policy", "allkeys-lru"), ("--appendonly", "no")])
def test_another_server_at_the_same_address_gets_a_plan_of_its_own(
    own_server: EmbeddedServer, tmp_path: Path, options: tuple[str, str]
) -> None:
    """P1, P2: as after a failover to a server that is not set up like the first."""
    with EmbeddedServer(tmp_path / "other", *DURABLE, *options) as other:

        async def use(intake: Intake, proxy: Net) -> None:
            await intake.start()
            proxy.upstream = other.port
            for link in proxy.links:
                link.client.close()
            for body in (b"one", b"two"):
                with pytest.raises(Unavailable):
                    await intake.accept(delivery(body))
            with connect(make_settings(other.url)) as redis:
                assert redis.keys("*") == []
            proxy.upstream = own_server.port
            assert (await accept_patiently(intake, delivery(b"after"))).status == "accepted"

        through(own_server, use)


def test_a_primary_that_takes_no_writes_any_more_is_left(own_server: EmbeddedServer, tmp_path: Path) -> None:
    """P6: it was demoted and has kept its connections; the address stands for another one by now."""
    with EmbeddedServer(tmp_path / "other", *DURABLE) as other:

        async def use(intake: Intake, proxy: Net) -> None:
            await intake.start()
            with connect(make_settings(own_server.url)) as redis:
                redis.replicaof("127.0.0.1", other.port)
            proxy.upstream = other.port
            assert (await intake.accept(delivery(b"after"))).status == "accepted"

        through(own_server, use)


# --- A server in trouble


def test_a_server_in_trouble_gets_few_connections(own_server: EmbeddedServer) -> None:
    """P6: however many deliveries are refused meanwhile; and afterwards all is well again."""

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.accept(delivery(b"before"))
        with connect(make_settings(own_server.url)) as redis:
            redis.config_set("maxmemory", 1)
            opened = proxy.connections
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for n in range(30):
                with pytest.raises(Unavailable):
                    await intake.accept(delivery(b"%d" % n))
            assert proxy.connections - opened <= 3 * (6 + 2 * (loop.time() - begun))
            redis.config_set("maxmemory", 0)
        assert (await accept_patiently(intake, delivery(b"after"))).status == "accepted"

    through(own_server, use, ack_budget=SHORT_BUDGET_SECONDS)


def test_a_server_that_lets_in_few_is_used_by_few(own_server: EmbeddedServer) -> None:
    """P6: a connection that is refused costs those that there are nothing."""
    settings = make_settings(own_server.url)

    async def use(intake: Intake) -> None:
        with connect(settings) as redis:
            redis.config_set("maxclients", 2)
            for n in range(50):
                assert (await accept_patiently(intake, delivery(b"%d" % n))).status == "accepted"
            opened: Any = redis.info("stats")["total_connections_received"]
            for n in range(50, 100):
                assert (await intake.accept(delivery(b"%d" % n))).status == "accepted"
            again: Any = redis.info("stats")["total_connections_received"]
            assert again - opened <= 50

    run(settings, use)


def test_a_frozen_server_gets_few_connections_and_works_again_afterwards(own_server: EmbeddedServer) -> None:
    """P6."""

    async def use(intake: Intake, proxy: Net) -> None:
        await intake.start()
        opened = proxy.connections
        with frozen(own_server.pid):
            answers = await asyncio.gather(
                *(intake.accept(delivery(b"%d" % n)) for n in range(200)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} == {Unavailable}
            assert proxy.connections - opened <= 2
        assert (await accept_patiently(intake, delivery(b"after"))).status == "accepted"

    through(own_server, use, ack_budget=SHORT_BUDGET_SECONDS)
