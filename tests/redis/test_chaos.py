"""What `make chaos` stands on: its oracle catches what it must, its proxy strikes where it says."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from redis import Connection, ConnectionPool
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError  # noqa: A004

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox import jobs, scripts
from app.inbox.inbox import Inbox
from app.inbox.record import Ended
from tests.chaos.faults import REGISTER
from tests.chaos.handlers import DOOMED, STEPS
from tests.chaos.ledger import Delivery, Effect, Episode, Interruption, Ledger, append
from tests.chaos.oracle import Evidence, Rule, Stored, judge, repeats
from tests.chaos.proxy import Link, Moment, Proxy, Trap, close_after
from tests.chaos.report import markdown, rows
from tests.chaos.runner import Outcome, plan
from tests.chaos.wire import CALLS, Recogniser
from tests.support.deliveries import accept_all, delivery

BODY, ID = b'{"n":1}', "e1"


def delivered(body: bytes = BODY, id: str = ID, **more: Any) -> Delivery:
    made = Delivery(body, 0, sent=1.0, answered=1.1, status=200, verdict="accepted", id=id)
    return replace(made, **more)


def effect(at: float, pid: int = 7, **more: Any) -> Effect:
    return Effect("effect", ID, "slow", "key", pid, at)._replace(**more)


GOOD = Evidence(
    deliveries=[delivered(), delivered(verdict="duplicate"), Delivery(b"forged", 0, 1.0, authentic=False, status=401)],
    effects=[effect(2.0), effect(2.1, kind="finished", key="")],
    interruptions=[],
    records={ID: Stored("done", BODY, "chaos.slow")},
    leftovers={"open events": 0},
)


def broken(**changes: Any) -> set[Rule]:
    return {violation.rule for violation in judge(replace(GOOD, **changes), STEPS, DOOMED)}


def test_the_oracle_has_nothing_to_say_where_all_is_well() -> None:
    assert broken() == set()


ANEW = b'{"n": 1, "attempt": 2}'


def test_the_oracle_takes_a_try_written_anew_for_the_same() -> None:
    """P4."""
    again = delivered(ANEW, verdict="duplicate", first=BODY)
    assert broken(deliveries=[*GOOD.deliveries, again]) == set()
    assert broken(deliveries=[*GOOD.deliveries, again], records={ID: Stored("done", ANEW, "chaos.slow")}) == set()


def test_the_oracle_sees_a_try_written_anew_that_became_a_second_event() -> None:
    """P4."""
    again = delivered(ANEW, "e2", verdict="conflict", first=BODY)
    records = {**GOOD.records, "e2": Stored("done", ANEW, "chaos.slow")}
    noted = [*GOOD.effects, effect(3.0, event="e2", key="key 2")]
    assert broken(deliveries=[*GOOD.deliveries, again], records=records, effects=noted) == {"repeated"}


@pytest.mark.parametrize(
    "records",
    [
        {},
        {ID: Stored("queued", BODY, "chaos.slow")},
        {ID: Stored("done", b"other", "chaos.slow")},
        {ID: Stored("dead", BODY, "chaos.slow")},
        {ID: Stored("done", BODY, "chaos.steps")},
    ],
    ids=["no record", "not final", "another body", "given up", "no effect"],
)
def test_the_oracle_sees_what_was_lost(records: dict[str, Stored]) -> None:
    """P1, P2."""
    assert "lost" in broken(records=records)


def test_a_lost_event_that_was_never_acknowledged_is_nobodys_loss() -> None:
    refused, unanswered = Delivery(b"refused", 0, 1.0, status=503), Delivery(b"unanswered", 0, 1.0)
    assert broken(deliveries=[*GOOD.deliveries, refused, unanswered]) == set()


@pytest.mark.parametrize(
    "effects",
    [
        [effect(2.0), effect(3.0)],
        [effect(2.0), effect(3.0, key="another")],
        [effect(2.0), effect(2.0, step="other")],
    ],
    ids=["for no reason", "with another key", "with another's key"],
)
def test_the_oracle_sees_an_effect_too_many(effects: list[Effect]) -> None:
    """P5."""
    assert broken(effects=effects) == {"repeated"}


def test_a_step_cut_in_the_middle_may_run_once_more_and_not_twice() -> None:
    """P5."""
    kill = Interruption("kill", 2.5, 2.5, pid=7)
    twice = [effect(2.0), effect(3.0, pid=8)]
    assert broken(effects=twice, interruptions=[kill]) == set()
    assert broken(effects=[*twice, effect(4.0, pid=9)], interruptions=[kill]) == {"repeated"}
    assert broken(effects=twice, interruptions=[replace(kill, pid=8)]) == {"repeated"}
    assert broken(effects=twice, interruptions=[replace(kill, begun=3.5, ended=3.5)]) == {"repeated"}
    assert broken(effects=twice, interruptions=[replace(kill, begun=1.0, ended=1.0)]) == {"repeated"}
    everybody = Interruption("clock", 2.5, 2.5, pid=None)
    assert broken(effects=twice, interruptions=[everybody]) == set()
    assert [repeat.excuse for repeat in repeats(replace(GOOD, effects=twice, interruptions=[kill]))] == ["kill"]


def test_a_handler_that_ran_out_of_time_may_run_a_step_once_more() -> None:
    late = {"outcome": "retry", "error": {"type": "workers.processor.HandlerTimeout"}}
    records = {ID: Stored("done", BODY, "chaos.slow", (late,))}
    twice = [effect(2.0), effect(3.0)]
    assert broken(effects=twice, records=records) == set()
    assert broken(effects=[*twice, effect(4.0)], records=records) == {"repeated"}


def test_no_reason_is_good_enough_to_run_a_finished_step_again() -> None:
    """P5."""
    effects = [*GOOD.effects, effect(3.0)]
    assert broken(effects=effects, interruptions=[Interruption("kill", 2.5, 2.5, pid=7)]) == {"repeated"}


def test_the_oracle_sees_one_event_made_two() -> None:
    """P4."""
    records = {ID: GOOD.records[ID], "e2": GOOD.records[ID]}
    effects = [*GOOD.effects, effect(2.5, event="e2", key="key 2")]
    twins = [delivered(), delivered(id="e2", verdict="duplicate")]
    assert broken(deliveries=twins, records=records, effects=effects) == {"repeated"}
    assert broken(deliveries=[delivered(), delivered()]) == {"repeated"}


def test_the_oracle_sees_strangers() -> None:
    """P3."""
    stranger = {**GOOD.records, "e2": Stored("done", b"forged")}
    assert broken(records=stranger) == {"forged"}
    assert broken(records={**GOOD.records, "e2": Stored("done", b"never sent")}) == {"invented"}
    assert broken(effects=[*GOOD.effects, effect(2.5, event="e2", key="key 2")]) == {"invented"}
    admitted = Delivery(b"forged", 0, 1.0, authentic=False, status=200)
    assert broken(deliveries=[delivered(), admitted]) == {"forged"}


@pytest.mark.parametrize("status", [400, 413, 429, 500])
def test_the_oracle_sees_a_refusal_that_is_not_honest(status: int) -> None:
    """P6."""
    assert broken(deliveries=[*GOOD.deliveries, Delivery(BODY, 0, 1.0, status=status)]) == {"refused"}


def test_the_oracle_sees_what_is_left_over() -> None:
    assert broken(leftovers={"RQ jobs": 1}) == {"left over"}


def test_effects_are_read_as_they_were_noted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "effects")
    assert ledger.effects() == []
    for noted in (effect(2.0), effect(1.0, kind="finished")):
        append(str(ledger.file), noted)
    assert ledger.effects() == [effect(1.0, kind="finished"), effect(2.0)]


def test_losses_and_repeats_are_counted_for_the_fault_that_was_on() -> None:
    one = Episode("one", "one", begun=0.0, struck=0.5, healing_from=0.6, healed=0.9)
    two = replace(one, fault="two", row="two", begun=1.5, struck=1.6, healing_from=1.7, healed=3.0)
    ledger = Ledger(Path("nowhere"), deliveries=list(GOOD.deliveries), episodes=[one, two])
    evidence = replace(GOOD, effects=[effect(2.0), effect(2.5)], records={})
    outcome = Outcome(evidence, judge(evidence, STEPS, DOOMED), 4.0, [])
    faults = [replace(REGISTER[0], name=name, row=name) for name in ("one", "two", "three")]
    first, second, third = rows(ledger, outcome, faults)
    assert (first.acknowledged, first.lost, first.repeated) == (2, 1, 0)
    assert (second.acknowledged, second.lost, second.repeated) == (0, 0, 1)
    assert [first.worst, second.worst] == pytest.approx([0.3, 1.3])
    assert third.note == "not run: no time"
    assert markdown([first, second, third]).count("\n") == 5


def test_a_plan_is_decided_by_its_seed() -> None:
    plans = [plan(REGISTER, random.Random(seed), quick=False) for seed in (1, 1, 2)]  # noqa: S311
    assert plans[0] == plans[1] != plans[2]
    quick = plan(REGISTER, random.Random(1), quick=True)  # noqa: S311
    assert len({fault.row for fault in quick}) == len(quick) < len(plans[0])


def calls() -> Iterator[tuple[str, bytes]]:
    yield "accept", _command(scripts.ACCEPT.sha, "0", "…")
    given = '{"worker":"w","lease":1,"retention":1,"want":"next"'
    yield "take", _command(scripts.WORK.sha, "0", given + "}")
    yield "finish", _command(scripts.WORK.sha, "0", given + ',"ended":{"id":"e1","fields":["a","{}"]}}')
    yield "step", _command(scripts.STEP.sha, "0", "id")
    yield "sweep", _command(scripts.SWEEP.sha, "0")
    yield "other", _command("0" * 40, "0")


def _command(*arguments: str) -> bytes:
    encoded = [argument.encode() for argument in ("EVALSHA", *arguments)]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in encoded)


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_calls_are_recognised_however_the_bytes_are_cut(size: int) -> None:
    stream = b"".join(b"*1\r\n$4\r\nPING\r\n" + command for _, command in calls())
    recogniser = Recogniser()
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [call for chunk in chunks for call in recogniser.calls(chunk)] == [name for name, _ in calls()]


class Watched(Connection):
    """A connection whose calls are recognised as it sends them."""

    seen: ClassVar[list[str]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._recogniser = Recogniser()

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        Watched.seen += self._recogniser.calls(b"".join(command))
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


def test_a_worker_that_takes_and_one_that_ends_an_attempt_are_told_apart(
    server: EmbeddedServer, redis: "SyncRedis", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the inbox itself writes its calls, whatever arguments they have."""
    accept_all(settings, delivery(BODY))
    monkeypatch.setattr(Watched, "seen", [])
    with SyncRedis(connection_pool=ConnectionPool(Watched, port=server.port)) as watched:
        inbox = Inbox(watched, settings)
        record = inbox.work("w").taken
        assert record
        inbox.work("w", Ended(record.id, record.token, "retry", b'{"error":null}', fields={"step:1": '{"n":{}}'}))
        inbox.work("w", want=record.id)
    assert [call for call in Watched.seen if call in CALLS] == ["take", "finish", "take"]


SCRIPT, TRACE = scripts.REPLAY, "jobhook:job"


@asynccontextmanager
async def through_proxy(server: EmbeddedServer) -> AsyncIterator[tuple[Proxy, "Redis", "Redis"]]:
    """A proxy, a client that goes through it and never tries again, and one that does not."""
    proxy = Proxy(server.port)
    await proxy.start()
    client = Redis(port=proxy.port, retry=Retry(NoBackoff(), 0), socket_timeout=5)
    direct = Redis(port=server.port)
    await direct.flushall()
    await direct.script_load(SCRIPT.text)
    try:
        yield proxy, client, direct
    finally:
        await client.aclose()
        await direct.aclose()
        await proxy.close()


async def replay(client: "Redis") -> Any:
    """A call of a script that leaves a trace."""
    return await client.evalsha(SCRIPT.sha, 0, jobs.job(1), 60, "nobody")


@pytest.mark.parametrize(
    ("moment", "executed", "answered"),
    [
        ("request seen", False, False),
        ("reply withheld", True, False),
        ("reply cut", True, False),
        ("reply delivered", True, True),
    ],
)
def test_the_proxy_strikes_at_its_moment(
    server: EmbeddedServer, moment: Moment, executed: bool, answered: bool
) -> None:
    acts: dict[Moment, Callable[[Link], None]] = {"reply cut": close_after, "reply delivered": close_after}

    async def session() -> None:
        async with through_proxy(server) as (proxy, client, direct):
            trap = Trap("replay", moment, acts.get(moment, Link.reset))
            proxy.trap = trap
            if answered:
                assert await replay(client) == [b""]
            else:
                with pytest.raises(ConnectionError):
                    await replay(client)
            assert trap.sprung.is_set()
            assert bool(await direct.exists(TRACE)) is executed
            await client.connection_pool.disconnect()
            assert await replay(client) == [b""]  # once only

    asyncio.run(session())


def test_every_moment_is_tried() -> None:
    assert {fault.name.partition(": ")[2] for fault in REGISTER if fault.spare} == set(get_args(Moment))


def test_the_proxy_lets_pass_what_it_is_told_to(server: EmbeddedServer) -> None:
    async def session() -> None:
        async with through_proxy(server) as (proxy, client, _):
            proxy.trap = Trap("replay", "request seen", Link.reset, skip=2)
            for _ in range(2):
                assert await replay(client) == [b""]
                assert await client.ping()
            with pytest.raises(ConnectionError):
                await replay(client)

    asyncio.run(session())


def test_a_black_hole_swallows_and_then_gives_back(server: EmbeddedServer) -> None:
    async def session() -> None:
        async with through_proxy(server) as (proxy, client, _):
            await client.ping()
            await proxy.hold(True)
            answer = asyncio.ensure_future(replay(client))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(answer), 0.05)
            await proxy.hold(False)
            assert await answer == [b""]

    asyncio.run(session())


def test_cut_replies_are_seen_as_broken_connections(server: EmbeddedServer) -> None:
    async def session() -> None:
        async with through_proxy(server) as (proxy, client, direct):
            await client.ping()
            proxy.cut = 1.0
            with pytest.raises(RedisError):
                await replay(client)
            assert await direct.exists(TRACE)
            proxy.cut = 0.0
            assert await replay(client) == [b""]

    asyncio.run(session())
