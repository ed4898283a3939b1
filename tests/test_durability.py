"""P1: how each kind of server makes a write durable, or why it cannot."""

from typing import Any

import pytest

from app.durability import EVERYSEC_BATCHES, Plan, Server, plan


def server(version: str = "7.4.1", *, aof: bool = True, appendfsync: str | None = "everysec", **info: Any) -> Server:
    config = {} if appendfsync is None else {"appendfsync": appendfsync}
    return Server.from_info({"redis_version": version, "aof_enabled": int(aof), **info}, config)


def valkey(**more: Any) -> Server:
    return server("7.2.4", valkey_version="8.1.0", **more)


WAITAOF_EACH = Plan(waitaof=True, parallel=1)
WAITAOF_SEVERAL = Plan(waitaof=True, parallel=EVERYSEC_BATCHES)
BY_REPLY = Plan(waitaof=False, parallel=1)


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
    assert plan("fsync", found) == expected


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
    made = plan("fsync", found)
    assert made.shortfall is not None
    assert remedy in made.shortfall
    assert "JOBHOOK_DURABILITY=memory" in made.shortfall
    assert not made.waitaof


@pytest.mark.parametrize("aof", [True, False])
def test_memory_waits_for_nothing(aof: bool) -> None:
    assert plan("memory", server("7.0.15", aof=aof)) == Plan(waitaof=False, parallel=1)


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
