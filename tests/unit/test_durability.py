"""P1: how each kind of server makes a write durable, or why it cannot."""

from typing import Any

import pytest

from app.store.durability import BATCHES, EVERYSEC_BATCHES, REPLICA_BATCHES, Durability, Plan, Server, Wait, plan


def server(version: str = "7.4.1", *, aof: bool = True, appendfsync: str | None = "everysec", **info: Any) -> Server:
    config = {} if appendfsync is None else {"appendfsync": appendfsync}
    return Server.from_info({"redis_version": version, "aof_enabled": int(aof), **info}, config)


def valkey(**more: Any) -> Server:
    return server("7.2.4", valkey_version="8.1.0", **more)


BUDGET = 1.0
WAITAOF: tuple[Wait, ...] = (("WAITAOF", 1, 0, 0),)
WAITAOF_EACH = Plan(WAITAOF, parallel=BATCHES)
WAITAOF_SEVERAL = Plan(WAITAOF, parallel=EVERYSEC_BATCHES)
BY_REPLY = Plan(parallel=BATCHES)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(server("7.2.0"), WAITAOF_SEVERAL, id="Redis 7.2 everysec"),
        pytest.param(server("7.2.0", appendfsync="no"), WAITAOF_SEVERAL, id="Redis 7.2 no"),
        pytest.param(server("7.2.0", appendfsync="always"), WAITAOF_EACH, id="Redis 7.2 always"),
        pytest.param(server("7.2.0", appendfsync=None), WAITAOF_SEVERAL, id="Redis 7.2 hidden"),
        pytest.param(server("8.2.1"), WAITAOF_SEVERAL, id="Redis 8"),
        pytest.param(server("10.0.0"), WAITAOF_SEVERAL, id="Redis 10"),
        pytest.param(server("7.0.15", appendfsync="always"), BY_REPLY, id="Redis 7.0 always"),
        pytest.param(valkey(), WAITAOF_SEVERAL, id="Valkey everysec"),
        pytest.param(valkey(appendfsync="always"), WAITAOF_EACH, id="Valkey always"),
    ],
)
def test_plans_for_fsync(found: Server, expected: Plan) -> None:
    assert plan("fsync", found, BUDGET) == expected


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        pytest.param(server("7.0.15"), "Redis 7.0.15 has no WAITAOF: set `appendfsync always`", id="Redis 7.0"),
        pytest.param(server("7.0.15", appendfsync=None), "set `appendfsync always`", id="Redis 7.0 hidden"),
        pytest.param(server(aof=False), "set `appendonly yes`", id="no AOF"),
        pytest.param(server(aof=False, appendfsync="always"), "set `appendonly yes`", id="no AOF, but always"),
        pytest.param(valkey(aof=False), "set `appendonly yes`", id="Valkey without AOF"),
    ],
)
def test_names_the_remedy_where_fsync_cannot_be_had(found: Server, remedy: str) -> None:
    made = plan("fsync", found, BUDGET)
    assert made.shortfall is not None
    assert remedy in made.shortfall
    assert "JOBHOOK_DURABILITY=memory" in made.shortfall
    assert not made.waits


@pytest.mark.parametrize("aof", [True, False])
def test_memory_waits_for_nothing(aof: bool) -> None:
    assert plan("memory", server("7.0.15", aof=aof), BUDGET) == BY_REPLY


def following(state: str = "online") -> dict[str, Any]:
    """What INFO says of one replica."""
    return {"role": "master", "connected_slaves": 1, "slave0": {"state": state, "lag": 0}}


@pytest.mark.parametrize(
    ("found", "parallel"),
    [
        pytest.param(valkey(appendfsync="always", **following()), REPLICA_BATCHES, id="always"),
        pytest.param(valkey(**following()), EVERYSEC_BATCHES, id="everysec"),
        pytest.param(server("7.2.0", appendfsync=None, **following()), EVERYSEC_BATCHES, id="hidden"),
    ],
)
def test_a_replicas_disk_is_asked_for_after_its_memory_and_again(found: Server, parallel: int) -> None:
    """Asked at once it would tell of the time before the batch, and then once a second."""
    made = plan("replica", found, BUDGET)
    assert made.waits[0] == ("WAIT", 1, 1000)
    assert set(made.waits[1:]) == {("WAITAOF", 1, 1, 100)}
    assert len(made.waits) == 1 + 10
    assert (made.parallel, made.in_memory) == (parallel, False)
    assert len(plan("replica", found, 0.05).waits) == 2


@pytest.mark.parametrize(
    ("replies", "confirmed"),
    [
        ([1, [1, 1]], True),
        ([2, [1, 0], [1, 2], [0, 0]], True),
        ([1, [1, 0], [1, 0]], False),  # its memory has it, its disk has not
        ([1, [0, 1]], False),
        ([0, [1, 0]], False),
        ([], False),
    ],
)
def test_a_replicas_disk_counts_and_not_its_memory(replies: list[Any], confirmed: bool) -> None:
    """P1."""
    assert plan("replica", valkey(**following()), BUDGET).confirmed(replies) is confirmed


def test_without_waitaof_a_replicas_memory_is_the_most_there_is() -> None:
    """P1: on the primary's own disk all the same."""
    made = plan("replica", server("7.0.15", appendfsync="always", **following()), BUDGET)
    assert made == Plan((("WAIT", 1, 1000),), REPLICA_BATCHES, replicas=1, in_memory=True)
    assert made.confirmed([1])
    assert not made.confirmed([0])
    assert plan("replica", server("7.0.15", **following()), BUDGET).shortfall


@pytest.mark.parametrize(
    "found", [valkey(), valkey(role="master", connected_slaves=0), valkey(**following("wait_bgsave"))]
)
def test_without_a_replica_in_step_nothing_is_promised_of_one(found: Server) -> None:
    """P1."""
    made = plan("replica", found, BUDGET)
    assert "no replica is connected" in str(made.shortfall)
    assert "`replica-priority`" in str(made.shortfall)


def test_replica_needs_the_primarys_own_disk_too() -> None:
    """P1."""
    assert "`appendonly yes`" in str(plan("replica", valkey(aof=False, **following()), BUDGET).shortfall)


@pytest.mark.parametrize("wanted", ["memory", "fsync", "replica"])
def test_a_server_that_is_a_replica_itself_takes_nothing(wanted: Durability) -> None:
    """P1, P6."""
    assert "it is a replica" in str(plan(wanted, valkey(role="slave"), BUDGET).shortfall)


@pytest.mark.parametrize("wanted", ["memory", "fsync", "replica"])
def test_a_server_that_may_evict_takes_nothing(wanted: Durability) -> None:
    """P2: whatever its memory, and however it came to be the one."""
    made = plan(wanted, valkey(maxmemory_policy="allkeys-lru", **following()), BUDGET)
    assert made.shortfall == "`maxmemory-policy allkeys-lru` may throw events away: set `maxmemory-policy noeviction`"


@pytest.mark.parametrize(("local", "confirmed"), [(0, False), (1, True)])
def test_fsync_is_judged_by_the_reply(local: int, confirmed: bool) -> None:
    """P1."""
    assert plan("fsync", valkey(), BUDGET).confirmed([[local, 0]]) is confirmed


def test_knows_a_server_by_its_replies() -> None:
    assert server("7.2.0-rc1").version == (7, 2)
    assert server("7.4.1").name == "Redis 7.4.1"
    assert valkey().name == "Valkey 8.1.0"
    assert not Server.from_info({"redis_version": "7.2.4"}, {}).aof


@pytest.mark.parametrize(
    ("policy", "may_evict"), [("noeviction", False), ("allkeys-lru", True), ("volatile-ttl", True), (None, False)]
)
def test_knows_whether_the_server_may_throw_events_away(policy: str | None, may_evict: bool) -> None:
    """P2."""
    from_info = server() if policy is None else server(maxmemory_policy=policy)
    from_config = Server.from_info({"redis_version": "7.2.4"}, {"maxmemory-policy": policy} if policy else {})
    assert from_info.may_evict == from_config.may_evict == may_evict


HIDDEN = {"role": "master", "maxmemory_policy": "noeviction"}


@pytest.mark.parametrize("aof", [True, False])
def test_a_service_is_believed_where_one_cannot_look(aof: bool) -> None:
    assert plan("service", server(aof=aof, appendfsync=None, **HIDDEN), BUDGET) == BY_REPLY
    assert plan("service", Server.from_info({"redis_version": "7.1.0"} | HIDDEN, {}), BUDGET) == BY_REPLY


@pytest.mark.parametrize("appendfsync", ["everysec", "no"])
def test_a_server_that_can_be_looked_at_is_no_service(appendfsync: str) -> None:
    """P1, P10: else it would be `memory` under another name."""
    made = plan("service", valkey(appendfsync=appendfsync), BUDGET)
    assert made.shortfall is not None
    assert "JOBHOOK_DURABILITY=fsync" in made.shortfall
    assert plan("service", valkey(appendfsync="always"), BUDGET) == BY_REPLY
    assert plan("service", valkey(aof=False, appendfsync="always"), BUDGET).shortfall


def test_a_server_that_does_not_tell_whether_it_has_a_log_is_not_said_to_have_none() -> None:
    """P9: fewer sections of INFO."""
    made = plan("fsync", Server.from_info({"redis_version": "7.1.0"} | HIDDEN, {}), BUDGET)
    assert made.shortfall is not None
    assert made.shortfall.startswith("it does not tell")
    assert "JOBHOOK_DURABILITY=service" in made.shortfall


@pytest.mark.parametrize("info", [{"cluster_enabled": 1}, {"redis_mode": "cluster"}])
@pytest.mark.parametrize("wanted", ["memory", "fsync", "replica", "service"])
def test_a_cluster_is_not_supported(info: dict[str, Any], wanted: Durability) -> None:
    made = plan(wanted, valkey(appendfsync="always", **info), BUDGET)
    assert made.shortfall == "it is a cluster, which is not supported yet: use a Redis with cluster mode disabled"
