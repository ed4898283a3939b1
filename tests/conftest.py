"""One real server a test process; every test begins with an empty one."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from redis import Redis

from app.cli import embedded
from app.cli.embedded import DURABLE, EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import Inbox, connect
from app.store.durability import WAITAOF_SINCE
from tests.support.processes import clean_environment
from tests.support.stack import MakeStack, Stack, make_settings

# The machine may be busy; nothing is measured by how long an example takes.
hypothesis.settings.register_profile("jobhook", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile(  # pytest --hypothesis-profile=unshrunk: to know that it fails, not how
    "unshrunk",
    hypothesis.settings.get_profile("jobhook"),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("jobhook")


SERVER_BINARY = "TEST_SERVER_BINARY"
"""A variable that names the `redis-server` or `valkey-server` to test with, instead of the Valkey that comes along."""

ABOUT_VALKEY = {"test_a_server_tells_what_it_is", "test_without_its_package_the_error_says_what_to_install"}
"""Tests of the Valkey that comes along, which another server is not."""
ABOUT_WAITAOF = {
    "test_a_command_that_is_switched_off_is_named",
    "test_a_replica_in_step_is_well",
    "test_a_replica_without_append_only_file_is_found_out",
    "test_a_service_that_forbids_config_is_judged_by_what_it_tells",
    "test_a_wait_for_the_disk_that_ends_without_it_is_not_taken_for_it",
    "test_an_aof_switched_off_while_running_is_noticed",
    "test_concurrent_deliveries_share_round_trips",
    "test_fsync_every_second_is_durable_but_slow",
    "test_fsync_waits_for_the_disk_whatever_the_server_does_by_itself",
    "test_what_a_delivery_asks_of_the_server",
    "test_whenever_a_delivery_would_be_refused_the_cause_is_named",
    "test_who_may_not_wait_need_not_where_each_write_is_fsynced",
}
"""Tests that count on a server with WAITAOF, of 7.2 and later."""

if SERVER_BINARY in os.environ:
    embedded._binary = lambda: Path(os.environ[SERVER_BINARY])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is not about the server to test with."""
    if SERVER_BINARY not in os.environ:
        return
    printed = subprocess.run(
        [os.environ[SERVER_BINARY], "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r" v=(\d+)\.(\d+)", printed)
    assert found, printed
    not_about_it = ABOUT_VALKEY | (ABOUT_WAITAOF if (int(found[1]), int(found[2])) < WAITAOF_SINCE else set())
    for item in items:
        if getattr(item, "originalname", "") in not_about_it:
            item.add_marker(pytest.mark.skip(f"not about this server: {printed.strip()}"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("valkey"), *DURABLE) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may stop, freeze or misconfigure."""
    running = EmbeddedServer(tmp_path / "valkey", *DURABLE).start()
    yield running
    running.kill()


@pytest.fixture
def redis_7_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server is a Redis 7.0 as Debian has it."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if " v=7.0." not in version:
        pytest.skip(f"the redis-server installed is not of version 7.0: {version}")
    monkeypatch.setattr("app.cli.embedded._binary", lambda: Path(binary))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is set where the tests are run has no influence, nor how another test has set up logging."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    for name in ("JOBHOOK_ENV_FILE", "JOBHOOK_SECRETS_DIR"):
        monkeypatch.setenv(name, os.devnull)
    yield
    structlog.reset_defaults()


@pytest.fixture
def settings(server: EmbeddedServer) -> Settings:
    return make_settings(server.url)


@pytest.fixture
def redis(server: EmbeddedServer, settings: Settings) -> Iterator["Redis"]:
    with connect(settings) as client:
        client.flushall()
        yield client
        immortal = _immortal(client)
        client.flushall()  # a receiver that the next module starts on this server must not meet what was left
        assert not immortal, "keys that should expire do not"


@pytest.fixture
def inbox(redis: "Redis", settings: Settings) -> Inbox:
    return Inbox(redis, settings)


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[MakeStack]:
    """Starts nothing by itself; stops what the test has started."""
    stacks: list[Stack] = []

    def make(redis_url: str, **environment: Any) -> Stack:
        stack = Stack(tmp_path, redis_url, **environment)
        stack.redis.flushall()
        stacks.append(stack)
        return stack

    yield make
    for stack in stacks:
        with stack:
            pass


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    """A receiver and one worker."""
    made = make_stack(server.url)
    made.start_receiver()
    made.start_workers()
    return made


def _immortal(client: "Redis") -> list[bytes]:
    """Markers, and records of finished events, that have no time to live."""
    keys = [key for marker in ("said", "seen") for key in client.scan_iter(f"jobhook:{marker}:*")]
    for state in ("done", "dead"):
        ids: Any = client.zrange(f"jobhook:{state}", 0, -1)
        keys += [b"jobhook:event:" + id for id in ids]
    return [key for key in keys if client.ttl(key) == -1]
