"""Group commit against a real server: durable before the receipt, in time whatever the server does."""

import asyncio

import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.receiver.intake import MAX_BATCH, MAX_WAITING, Intake, Receipt
from app.receiver.refusals import Unavailable
from tests.support import wait_until
from tests.support.deliveries import accept_all, delivery, run
from tests.support.inbox import calls
from tests.support.processes import frozen
from tests.support.stack import make_settings

PAUSE_MS = 400


def test_concurrent_deliveries_share_round_trips(redis: "Redis", settings: Settings) -> None:
    """One script call carries as many as are waiting, and the wait for the disk is paid once (P1)."""
    accept_all(settings, delivery(b"warm up"))
    before, waits = calls(redis, "evalsha"), calls(redis, "waitaof")
    receipts = accept_all(settings, *(delivery(b"%d" % n) for n in range(3 * MAX_BATCH)))
    assert [receipt.status for receipt in receipts] == ["accepted"] * 3 * MAX_BATCH
    assert calls(redis, "evalsha") - before == 3
    assert calls(redis, "waitaof") - waits == 3


def test_what_a_delivery_asks_of_the_server(redis: "Redis", settings: Settings) -> None:
    """A guard against regressions that no clock can upset: every command, counted by the server."""
    accept_all(settings, delivery(b"warm up"))
    redis.config_resetstat()
    batches = 3
    accept_all(settings, *(delivery(b"%d" % n) for n in range(batches * MAX_BATCH)))
    per_delivery = {"set": 1, "get": 1, "hmget": 1, "hget": 0, "hset": 1, "zadd": 3, "copy": 1, "rpush": 1}
    per_batch = {"evalsha": 1, "waitaof": 1, "time": 1, "del": 1, "hset": 1, "sadd": 1, "zadd": 1, "hincrby": 2}
    expected = {
        name: per_delivery.get(name, 0) * MAX_BATCH * batches + per_batch.get(name, 0) * batches
        for name in per_delivery | per_batch
    }
    assert {name: calls(redis, name) for name in expected} == expected


def test_without_load_a_delivery_goes_out_alone(redis: "Redis", settings: Settings) -> None:
    accept_all(settings, delivery(b"warm up"))
    before = calls(redis, "evalsha")
    accept_all(settings, delivery(b"one"))
    assert calls(redis, "evalsha") - before == 1


def test_each_delivery_in_a_batch_gets_its_own_receipt(inbox: Inbox, settings: Settings) -> None:
    """P4: also when the copies are in one batch."""
    one, other = delivery(b"bytes", "evt"), delivery(b"other bytes", "evt")
    receipts = accept_all(settings, one, one, other, other, delivery(b"new"))
    assert [receipt.status for receipt in receipts] == ["accepted", "duplicate", "conflict", "duplicate", "accepted"]
    assert receipts[0].id == receipts[1].id == one.id
    assert receipts[2].id == receipts[3].id != one.id
    assert inbox.get(receipts[2].id).conflict_of == one.id


def test_a_conflict_has_the_same_id_from_release_to_release(inbox: Inbox, settings: Settings) -> None:
    """P4: else an update of Jobhook would make every redelivery of one a new event."""
    receipts = accept_all(settings, *(delivery(body, "evt_1") for body in (b"{}", b"other", b"[]")))
    # (printf %s 1f5e8df173a948f26f16b9c040478752; printf other | openssl dgst -sha256 -binary | head -c 16) |
    #   sha1sum | cut -c1-32
    assert receipts[1].id == "415d33abee7b9df54eaf952fb87c66c8"
    # the same with printf '["test.ok",[]]', which is what that delivery says
    assert receipts[2].id == "5f7ebbb407da9a70221a7038d740fb6f"


def test_a_flushed_script_cache_is_no_trouble(redis: "Redis", settings: Settings) -> None:
    redis.script_flush()
    assert accept_all(settings, delivery(b"one"))[0].status == "accepted"


def test_fsync_waits_for_the_disk_whatever_the_server_does_by_itself(own_server: EmbeddedServer) -> None:
    """P1: with `appendfsync everysec` the receipt still comes after an fsync."""
    settings = make_settings(own_server.url)
    with connect(settings) as redis:
        redis.config_set("appendfsync", "everysec")
        accept_all(settings, delivery(b"one"))
        assert calls(redis, "waitaof") >= 1
        own_server.kill()
        own_server.start()
        assert redis.zcard("jobhook:open") == 1


def test_memory_does_not_wait_for_the_disk(redis: "Redis", settings: Settings) -> None:
    before = calls(redis, "waitaof")
    accept_all(settings.model_copy(update={"durability": "memory"}), delivery(b"one"))
    assert calls(redis, "waitaof") == before


@pytest.mark.parametrize("option", ["appendonly no", "maxmemory 1"])
def test_a_server_that_cannot_keep_a_delivery_gets_none(own_server: EmbeddedServer, option: str) -> None:
    """P1, P6: no AOF, or no memory left: 503, and nothing half done."""
    settings = make_settings(own_server.url)
    with connect(settings) as redis:
        redis.config_set(*option.split())
        with pytest.raises(Unavailable):
            accept_all(settings, delivery(b"one"))
        assert redis.keys("*") == []


def test_an_aof_switched_off_while_running_is_noticed(own_server: EmbeddedServer) -> None:
    """P1."""
    settings = make_settings(own_server.url)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"one"))
        with connect(settings) as redis:
            redis.config_set("appendonly", "no")
        with pytest.raises(Unavailable):
            await intake.accept(delivery(b"two"))

    run(settings, use)


def test_a_connection_cut_while_a_batch_is_on_its_way_costs_no_delivery(own_server: EmbeddedServer) -> None:
    """P6: it is tried once more on a new one."""

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with connect(make_settings(own_server.url)) as redis:
            redis.client_pause(PAUSE_MS)
            waiting = asyncio.create_task(intake.accept(delivery(b"cut")))
            await asyncio.wait({waiting}, timeout=PAUSE_MS / 4000)
            redis.client_kill_filter(_type="normal", skipme=True)
        assert (await waiting).id == delivery(b"cut").id  # as a duplicate, if the first try has been recorded

    run(make_settings(own_server.url), use)


def test_a_wait_for_the_disk_that_ends_without_it_is_not_taken_for_it(own_server: EmbeddedServer) -> None:
    """P1: somebody ends the wait by hand, and WAITAOF replies like any other time that nothing is on disk."""
    settings = make_settings(own_server.url)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with connect(settings) as redis:
            redis.config_set("appendfsync", "no")  # whatever is written now does not get to the disk soon
            waiting = asyncio.create_task(intake.accept(delivery(b"waits")))
            blocked = await asyncio.to_thread(wait_until, lambda: blocked_clients(redis), "the wait for the disk")
            assert redis.client_unblock(blocked[0])
            with pytest.raises(Unavailable):
                await waiting

    run(settings, use)


def blocked_clients(redis: "Redis") -> list[int]:
    return [int(client["id"]) for client in redis.client_list() if "b" in client["flags"]]


def test_no_server_is_told_at_once(own_server: EmbeddedServer) -> None:
    """P6."""
    own_server.stop()
    with pytest.raises(Unavailable):
        accept_all(make_settings(own_server.url), delivery(b"one"))


def test_a_frozen_server_is_given_up_in_time_and_works_again_afterwards(own_server: EmbeddedServer) -> None:
    """P6: the connection with the unread answer is not used again."""
    settings = make_settings(own_server.url, ack_budget=0.2)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with frozen(own_server.pid):
            late = await asyncio.gather(*(intake.accept(delivery(b"%d" % n)) for n in range(5)), return_exceptions=True)
            assert [type(answer) for answer in late] == [Unavailable] * 5
        receipts = [await intake.accept(delivery(b"after %d" % n)) for n in range(3)]
        assert [receipt.status for receipt in receipts] == ["accepted"] * 3

    run(settings, use)


def test_deliveries_wait_no_longer_than_the_budget_behind_a_stuck_batch(own_server: EmbeddedServer) -> None:
    """P6: one that arrives while a batch hangs is not kept for two budgets."""
    settings = make_settings(own_server.url, ack_budget=0.3)

    async def use(intake: Intake) -> None:
        loop = asyncio.get_running_loop()
        await intake.accept(delivery(b"before"))
        with frozen(own_server.pid):
            first = asyncio.create_task(intake.accept(delivery(b"first")))
            await asyncio.wait({first}, timeout=0.2)
            begun = loop.time()
            with pytest.raises(Unavailable):
                await intake.accept(delivery(b"second"))
            # In the budget, by the loop's own clock: the deadline decides, not the machine's speed.
            assert loop.time() - begun < 2 * settings.ack_budget
            with pytest.raises(Unavailable):
                await first

    run(settings, use)


def test_a_client_that_goes_away_takes_nobody_with_it(redis: "Redis", settings: Settings) -> None:
    async def use(intake: Intake) -> list[Receipt | BaseException]:
        tasks = [asyncio.create_task(intake.accept(delivery(b"%d" % n))) for n in range(3)]
        await asyncio.wait(tasks, timeout=0)
        tasks[1].cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    answers = run(settings, use)
    assert isinstance(answers, list)
    assert [type(answer) for answer in answers] == [Receipt, asyncio.CancelledError, Receipt]


def test_more_than_can_wait_are_refused_at_once(own_server: EmbeddedServer) -> None:
    """P3, P6: memory stays bounded whatever the server does."""
    settings = make_settings(own_server.url, ack_budget=1.0)

    async def use(intake: Intake) -> None:
        await intake.accept(delivery(b"before"))
        with frozen(own_server.pid):
            tasks = [asyncio.create_task(intake.accept(delivery(b"%d" % n))) for n in range(MAX_WAITING + 1)]
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            assert len(waiting) >= MAX_WAITING
            assert all(isinstance(task.exception(), Unavailable) for task in done)
            await asyncio.gather(*tasks, return_exceptions=True)

    run(settings, use)
