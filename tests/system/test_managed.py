"""What managed services forbid, by ACL and by real servers: what Jobhook then does, and says."""

from pathlib import Path

import orjson
import pytest
from redis import Redis

from app.cli.embedded import DURABLE, EmbeddedServer, free_port
from tests.support import wait_until
from tests.support.stack import MakeStack, Stack

EVERYTHING = ("on", ">password", "~*", "&*", "+@all", "-acl", "-debug", "-shutdown", "-replicaof", "-migrate")
SERVICES = {
    # Durability, and the levels of what the doctor finds.
    "no CONFIG": ((*EVERYTHING, "-config"), {"fsync": {"warn"}, "service": {"warn"}}),
    "no CONFIG, no WAITAOF": ((*EVERYTHING, "-config", "-waitaof"), {"fsync": {"fail"}, "service": {"warn"}}),
    "no CONFIG, no WAIT, no scripts by hand": (
        (*EVERYTHING, "-config", "-wait", "-waitaof", "-script", "+script|load"),
        {"service": {"warn"}},
    ),
}
CASES = [
    pytest.param(rules, durability, levels, id=f"{name}, {durability}")
    for name, (rules, expected) in SERVICES.items()
    for durability, levels in expected.items()
]


def restricted(server: EmbeddedServer, *rules: str) -> str:
    """The URL of a user who may no more than these rules allow."""
    with Redis(port=server.port) as redis:
        redis.execute_command("ACL", "SETUSER", "tenant", "reset", *rules)
    return f"redis://tenant:password@127.0.0.1:{server.port}/0"


def durability_of(stack: Stack) -> dict[str, str]:
    found = orjson.loads(stack.jobhook("doctor", "--json").stdout)
    return next(finding for finding in found if finding["check"] in {"durability", "writes"})


@pytest.mark.parametrize(("rules", "durability", "levels"), CASES)
def test_what_is_forbidden_is_done_without_or_said(
    own_server: EmbeddedServer,
    make_stack: MakeStack,
    rules: tuple[str, ...],
    durability: str,
    levels: set[str],
) -> None:
    """P1, P6, P9: either a delivery is recorded and worked off, or it gets a 503, and the doctor says why."""
    stack = make_stack(own_server.url, JOBHOOK_DURABILITY=durability)
    stack.environment["REDIS_URL"] = restricted(own_server, *rules)
    stack.start_receiver()
    stack.start_workers()
    finding = durability_of(stack)
    assert {finding["level"]} == levels
    answer = stack.deliver({"id": "evt_1", "type": "test.ok"})
    if levels == {"fail"}:
        assert answer.status_code == 503
        assert "WAITAOF" in finding["finding"]
    else:
        stack.wait_for(answer.json()["id"], "done")
        assert durability != "service" or "relies on whoever runs" in finding["finding"]


def test_service_on_a_server_of_ones_own_is_refused(tmp_path: Path, make_stack: MakeStack) -> None:
    """P1, P10."""
    with EmbeddedServer(tmp_path / "own", "--appendonly", "no", "--maxmemory-policy", "noeviction") as server:
        stack = make_stack(server.url, JOBHOOK_DURABILITY="service")
        stack.start_receiver()
        assert stack.deliver({"id": "evt_1", "type": "test.ok"}).status_code == 503
        finding = durability_of(stack)
        assert finding["level"] == "fail"
        assert "JOBHOOK_DURABILITY=fsync" in str(finding["remedy"])


def test_a_database_that_is_not_there_is_named(tmp_path: Path, make_stack: MakeStack) -> None:
    """P9: services that have database 0 only."""
    with EmbeddedServer(tmp_path / "one", *DURABLE, "--databases", "1") as server:
        stack = make_stack(server.url)
        stack.environment["REDIS_URL"] = server.url.removesuffix("/0") + "/1"
        said = stack.jobhook("doctor").stdout
        assert "has no such database" in said
        assert "such as /0" in said


def refused_by_a_cluster(stack: Stack, folder: Path, database: int, *command: str) -> str:
    """The only line that a process prints before it ends, at a cluster of one node that has every slot."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with EmbeddedServer(folder / "cluster", *DURABLE, *options) as cluster, Redis(port=cluster.port) as redis:
        redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: redis.execute_command("CLUSTER INFO")["cluster_state"] == "ok", "the cluster")
        stack.environment["REDIS_URL"] = f"redis://127.0.0.1:{cluster.port}/{database}"
        process = stack.start("refused", *command)
        assert process.wait(30) == 2
        assert "is a cluster" in stack.jobhook("doctor").stdout
    (line,) = stack.log_file("refused").read_text().strip().splitlines()
    return line


SAID = "it is a cluster, which is not supported yet: use a Redis with cluster mode disabled"


@pytest.mark.parametrize("command", [("app", "serve"), ("workers",)], ids=["receiver", "workers"])
def test_a_cluster_is_recognised_at_the_start_in_one_line(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """P9: and not by the errors that its scripts would meet."""
    assert SAID in refused_by_a_cluster(make_stack(server.url), tmp_path, 0, *command)


def test_a_cluster_that_has_database_0_only_is_recognised_too(
    redis_7_0: None, server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    """P9: it refuses the connection before it can be asked what it is."""
    assert SAID in refused_by_a_cluster(make_stack(server.url), tmp_path, 1, "app", "serve")
