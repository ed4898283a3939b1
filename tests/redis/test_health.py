"""What is found out about real servers, good and bad, and what follows from it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from app.cli.embedded import DURABLE, EmbeddedServer, free_port
from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import Inbox, connect
from app.ops.health import check, refuse_to_start
from app.ops.problems import Check
from tests.support import wait_until
from tests.support.sentinel import FAST_SYNC, in_step, replicates
from tests.support.stack import MakeStack, Stack, make_settings

Serve = Callable[..., EmbeddedServer]
NAMES = ["redis", "version", "durability", "eviction", "memory", "clock", "workers"]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a durable server with some options set otherwise."""
    servers: list[EmbeddedServer] = []

    def start(*options: str) -> EmbeddedServer:
        servers.append(EmbeddedServer(tmp_path / f"server-{len(servers)}", *DURABLE, *options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def serve_pair(serve: Serve) -> Callable[..., EmbeddedServer]:
    """Starts a primary, and a replica with some options set otherwise."""

    def start(*options: str) -> EmbeddedServer:
        primary = serve(*FAST_SYNC)
        replica = serve(*options, "--replicaof", f"127.0.0.1 {primary.port}")
        wait_until(lambda: replicates(replica), "the first copy")
        wait_until(lambda: in_step(primary), "the replica to be in step")
        return primary

    return start


@contextmanager
def connected(url: str, **overrides: Any) -> Iterator[tuple[Settings, "Redis"]]:
    settings = make_settings(url, **overrides)
    with connect(settings) as redis:
        yield settings, redis


def findings(url: str, **overrides: Any) -> dict[str, Check]:
    with connected(url, **overrides) as (settings, redis):
        return {finding.name: finding for finding in check(settings, redis)}


def problems(url: str, **overrides: Any) -> dict[str, str]:
    """What is not well, apart from the workers, which none of these servers has."""
    found = findings(url, **overrides)
    return {name: f.level for name, f in found.items() if f.level != "ok" and name != "workers"}


def test_a_good_server(server: EmbeddedServer) -> None:
    assert problems(server.url) == {}
    assert list(findings(server.url)) == NAMES


def test_without_append_only_file_nothing_is_durable(serve: Serve) -> None:
    """P1."""
    url = serve("--appendonly", "no").url
    assert problems(url) == {"durability": "fail"}
    finding = findings(url)["durability"]
    assert finding.finding == "fsync is not possible"
    assert "set `appendonly yes`" in str(finding.remedy)


def test_fsync_every_second_is_durable_but_slow(serve: Serve) -> None:
    """P1, P6: WAITAOF waits for the periodic fsync."""
    url = serve("--appendfsync", "everysec").url
    assert problems(url) == {"durability": "warn"}
    assert "set `appendfsync always`" in str(findings(url)["durability"].remedy)


def test_memory_durability_is_pointed_out(server: EmbeddedServer) -> None:
    """P1."""
    assert problems(server.url, durability="memory") == {"durability": "warn"}


def test_a_server_that_evicts_is_refused(serve: Serve) -> None:
    """P2."""
    url = serve("--maxmemory-policy", "allkeys-lru").url
    assert problems(url) == {"eviction": "fail"}
    with (
        connected(url) as (settings, redis),
        pytest.raises(ConfigError, match=r"^REDIS_URL: .*allkeys-lru.*: set `maxmemory-policy noeviction`$"),
    ):
        refuse_to_start(settings, redis)


def test_only_what_loses_events_stops_a_start(serve: Serve) -> None:
    """P6: a server that is down, or not durable yet, may still come up; until then there are 503s."""
    for url in (serve("--appendonly", "no").url, f"redis://127.0.0.1:{free_port()}/0"):
        with connected(url) as (settings, redis):
            refuse_to_start(settings, redis)


def test_memory_that_is_nearly_full_is_told_in_time(own_server: EmbeddedServer) -> None:
    """P6."""
    with connected(own_server.url) as (_, redis):
        redis.setrange("much", 20_000_000, b"x")
        used: Any = redis.info("memory")["used_memory"]
        redis.config_set("maxmemory", int(used * 1.05))
    assert problems(own_server.url) == {"memory": "warn"}
    assert re.fullmatch(r"\d+ MiB used of \d+", findings(own_server.url)["memory"].finding)


def test_a_server_that_is_down_is_one_finding() -> None:
    found = findings(f"redis://127.0.0.1:{free_port()}/0")
    assert list(found.values()) == [
        Check("redis", "fail", "does not answer (ConnectionError)", "start Redis, or set REDIS_URL")
    ]


def test_a_wrong_password_is_told_without_telling_it(serve: Serve) -> None:
    """P7."""
    server = serve()
    with connected(server.url) as (_, redis):
        redis.config_set("requirepass", "the-right-one")
    url = f"redis://:the-wrong-one@127.0.0.1:{server.port}/0"
    (finding,) = findings(url).values()
    assert finding.finding == "does not let us in (WRONGPASS)"
    assert "-one" not in repr(finding)


def test_a_service_that_forbids_config_is_judged_by_what_it_tells(tmp_path: Path, serve: Serve) -> None:
    """As managed services do."""
    renamed = EmbeddedServer(tmp_path / "renamed", *DURABLE, "--rename-command", "CONFIG", "")
    with renamed:
        assert problems(renamed.url) == {"durability": "warn"}  # it may be fsyncing each time, but does not say so
        assert "`appendfsync unknown`" in findings(renamed.url)["durability"].finding
    server = serve()
    with connected(server.url) as (_, redis):
        redis.acl_setuser("app", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-config"])
    assert problems(f"redis://app:any@127.0.0.1:{server.port}/0") == {"durability": "warn"}


def test_workers_are_seen_by_their_sweeps(inbox: Inbox, server: EmbeddedServer) -> None:
    """P2."""
    missing = findings(server.url)["workers"]
    assert (missing.level, missing.remedy) == ("warn", "run `jobhook work`")
    inbox.sweep()
    assert findings(server.url)["workers"].level == "ok"
    inbox.redis.set("jobhook:swept", int((time.time() - 60) * 1000))
    assert "last seen 60 s ago" in findings(server.url)["workers"].finding


def test_a_clock_that_is_wrong_is_told(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    monkeypatch.setattr("app.ops.health.time.time", lambda: right() + 60)
    clock = findings(server.url)["clock"]
    assert (clock.level, clock.finding) == ("warn", "Redis is -60 s against this machine")


# --- JOBHOOK_DURABILITY=replica


def test_without_a_replica_nothing_is_on_one(serve: Serve) -> None:
    """P1, P6."""
    url = serve().url
    assert problems(url, durability="replica") == {"durability": "fail"}
    finding = findings(url, durability="replica")["durability"]
    assert finding.finding == "replica is not possible"
    assert str(finding.remedy).startswith("no replica is connected: start one that has `appendonly yes`")


def test_a_replica_in_step_is_well(serve_pair: Serve) -> None:
    url = serve_pair().url
    assert problems(url, durability="replica") == {}
    finding = findings(url, durability="replica")["durability"].finding
    assert finding == "on the disks of primary and replica before each answer (1 replica)"


def test_a_replica_without_append_only_file_is_found_out(serve_pair: Serve) -> None:
    """P1: by trying, since the primary does not know of it."""
    url = serve_pair("--appendonly", "no").url
    assert problems(url, durability="replica") == {"durability": "fail"}
    assert "`appendonly yes`" in str(findings(url, durability="replica")["durability"].remedy)
    assert problems(url) == {}


def test_a_replica_in_place_of_the_primary_is_found_out(serve: Serve, serve_pair: Serve) -> None:
    """P6: at every level, since it takes no writes."""
    primary = serve_pair()
    url = serve("--replicaof", f"127.0.0.1 {primary.port}").url
    for durability in ("memory", "fsync", "replica"):
        assert problems(url, durability=durability) == {"durability": "fail"}
    assert "the sentinels" in str(findings(url)["durability"].remedy)


# --- Redis 7.0, which has no WAITAOF


@pytest.mark.usefixtures("redis_7_0")
def test_redis_7_0_knows_only_a_replicas_memory_and_says_so(serve_pair: Serve) -> None:
    """P1."""
    url = serve_pair().url
    # A replica that has just come may be asked while it is still busy with its first copy.
    wait_until(lambda: problems(url, durability="replica") == {"durability": "warn"}, "the replica to confirm")
    finding = findings(url, durability="replica")["durability"]
    assert re.match(r"on the disk of the primary, but only in a replica's memory: Redis 7\.0\.\d+", finding.finding)
    assert "crashing at once may lose acknowledged events" in str(finding.remedy)


@pytest.mark.usefixtures("redis_7_0")
def test_redis_7_0_is_durable_only_if_it_always_fsyncs(serve: Serve) -> None:
    """P1."""
    assert problems(serve().url) == {}
    url = serve("--appendfsync", "everysec").url
    assert problems(url) == {"durability": "fail"}
    remedy = str(findings(url)["durability"].remedy)
    assert re.match(r"Redis 7\.0\.\d+ has no WAITAOF: set `appendfsync always`", remedy)


# --- over HTTP


def get(stack: Stack, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{stack.port}{path}", timeout=30)


def test_healthz_and_readyz(stack: Stack) -> None:
    assert get(stack, "/healthz").json() == {"status": "ok"}
    wait_until(lambda: get(stack, "/readyz").json() == {"status": "ready", "problems": []}, "the first sweep")


def test_readyz_follows_redis_down_and_up_again(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P6."""
    stack = make_stack(own_server.url)
    stack.start_receiver()
    without_workers = get(stack, "/readyz")
    assert without_workers.status_code == 200
    assert [problem["check"] for problem in without_workers.json()["problems"]] == ["workers"]
    own_server.stop()
    down = get(stack, "/readyz")
    assert down.status_code == 503
    assert down.json() == {
        "status": "not ready",
        "problems": [
            {
                "check": "redis",
                "level": "fail",
                "finding": "does not answer (ConnectionError)",
                "remedy": "start Redis, or set REDIS_URL",
            }
        ],
    }
    assert get(stack, "/healthz").status_code == 200
    own_server.start()
    assert get(stack, "/readyz").status_code == 200


def test_readyz_and_deliveries_tell_the_same_of_a_server_that_is_not_durable(
    own_server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P1, P6."""
    stack = make_stack(own_server.url)
    stack.redis.config_set("appendonly", "no")
    stack.start_receiver()
    not_ready = get(stack, "/readyz")
    assert not_ready.status_code == 503
    assert [p["check"] for p in not_ready.json()["problems"] if p["level"] == "fail"] == ["durability"]
    assert stack.deliver({"id": "evt_1", "type": "test.ok", "data": {}}).status_code == 503


@pytest.mark.parametrize("command", [("app", "serve", "--port", "0"), ("workers",)])
def test_on_a_server_that_evicts_nothing_starts(command: tuple[str, ...], serve: Serve, make_stack: MakeStack) -> None:
    """P2."""
    stack = make_stack(serve("--maxmemory-policy", "allkeys-lru").url)
    process = stack.start("refused", *command)
    assert process.wait(30) != 0
    last = stack.logs().splitlines()[-1]
    assert "`maxmemory-policy allkeys-lru` may throw events away: set `maxmemory-policy noeviction`" in last
    assert "Traceback" not in stack.logs()
    if command[0] == "app":
        assert process.returncode == 2
        assert len(stack.logs().splitlines()) == 1
