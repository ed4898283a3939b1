"""P9: ready means that a delivery sent now would be answered 200; if not, the cause is named, and what to do."""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from app.cli.embedded import DURABLE, EmbeddedServer, free_port
from app.config.settings import Settings
from app.inbox.heartbeat import Heartbeat
from app.inbox.inbox import Inbox, connect
from app.inbox.scripts import PROBE
from app.ops import health
from app.ops.health import Health, check
from app.ops.problems import CLUSTER, Check
from app.receiver.refusals import Unavailable
from tests.support import wait_until
from tests.support.deliveries import accept_all, delivery
from tests.support.inbox import calls
from tests.support.processes import frozen
from tests.support.stack import ROOT, make_settings

Do = Callable[["Redis"], object]


ACCEPT_ITSELF = (ROOT / "app" / "inbox" / "scripts" / "accept.lua").read_text()


def findings(settings: Settings) -> dict[str, Check]:
    with Redis.from_url(settings.redis_url, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as redis:
        return {finding.name: finding for finding in check(settings, redis) if finding.level != "ok"}


def failures(settings: Settings) -> list[Check]:
    return [finding for finding in findings(settings).values() if finding.level == "fail"]


def is_accepted(settings: Settings) -> bool:
    try:
        return bool(accept_all(settings, delivery(os.urandom(8))))
    except Unavailable:
        return False


def limited(server: EmbeddedServer, *rules: str, **overrides: Any) -> Settings:
    """Settings for a user with these rules."""
    with Redis(port=server.port) as redis:
        redis.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", *rules)
    return make_settings(f"redis://limited:any@127.0.0.1:{server.port}/0", **overrides)


def everything_but(*refused: str) -> tuple[str, ...]:
    return ("+@all", "~*", *(f"-{command}" for command in refused))


def refuses(check: Check, code: str, *words: str) -> bool:
    said = f"{check.finding} {check.remedy}"
    return check.level == "fail" and code in re.findall(r"\w+", check.finding) and all(word in said for word in words)


# --- what a user may not do


def test_every_command_that_the_script_needs_and_may_not_use_is_named(own_server: EmbeddedServer) -> None:
    settings = make_settings(own_server.url)
    with Redis(port=own_server.port) as redis:
        redis.config_resetstat()
        assert failures(settings) == []
        used = {name.removeprefix("cmdstat_") for name in cast(dict[str, Any], redis.info("commandstats"))}
    written = {command.lower() for command in re.findall(r"redis\.call\('([A-Z]+)'", PROBE.text)}
    used &= written
    assert used >= {command.lower() for command in re.findall(r"redis\.call\('([A-Z]+)'", ACCEPT_ITSELF)}
    for command in used:
        user = limited(own_server, *everything_but(command))
        found = failures(user)
        assert [refuses(failure, "NOPERM", command.upper(), "TROUBLESHOOTING.md") for failure in found] in ([], [True])
        assert found or is_accepted(user)
        with Redis(port=own_server.port) as redis:
            lasting = [key for key in cast(list[bytes], redis.keys("*probe*")) if redis.ttl(key) == -1]
        assert lasting == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (everything_but("@scripting"), ("EVAL",)),
        (everything_but("info"), ("INFO",)),
        (("+@all", "~jobhook:*"), ("jobhook:* and rq:*",)),
        (("+@all", "~rq:*"), ("jobhook:* and rq:*",)),
        (("+@all", "%R~*"), ("jobhook:* and rq:*",)),
    ],
    ids=["no scripts", "no INFO", "no rq keys", "no jobhook keys", "reads only"],
)
def test_what_a_user_may_not_do_is_found(
    rules: tuple[str, ...], words: tuple[str, ...], own_server: EmbeddedServer
) -> None:
    settings = limited(own_server, *rules)
    (failure,) = failures(settings)
    assert refuses(failure, "NOPERM", *words), failure
    assert not is_accepted(settings)


def test_who_may_not_wait_need_not_where_each_write_is_fsynced(own_server: EmbeddedServer) -> None:
    """P1: with `appendfsync always` the reply itself comes after the fsync. Otherwise there is nothing to go by."""
    settings = limited(own_server, *everything_but("waitaof"))
    assert failures(settings) == []
    assert is_accepted(settings)
    with Redis(port=own_server.port) as redis:
        redis.config_set("appendfsync", "everysec")
    (failure,) = failures(settings)
    assert refuses(failure, "NOPERM", "WAITAOF"), failure
    assert not is_accepted(settings)
    hidden = limited(own_server, *everything_but("waitaof", "config"))  # it may be `always`, but who knows
    assert [failure.name for failure in failures(hidden)] == ["writes"]
    assert not is_accepted(hidden)


def test_who_may_not_see_the_workers_can_record_all_the_same(own_server: EmbeddedServer) -> None:
    settings = limited(own_server, *everything_but("zcard"))
    assert failures(settings) == []
    assert (
        findings(settings)["workers"].finding
        == "cannot be seen: Redis does not permit what is needed (NOPERM at ZCARD)"
    )
    assert is_accepted(settings)


# --- what the server refuses


def fill(redis: "Redis") -> None:
    redis.setrange("much", 2_000_000, b"x")
    redis.config_set("maxmemory", 1_000_000)


def want_replicas(redis: "Redis") -> None:
    redis.config_set("min-replicas-to-write", 1)


def follow_nobody(redis: "Redis") -> None:
    redis.replicaof("127.0.0.1", "1")


def follow_nobody_and_say_so(redis: "Redis") -> None:
    redis.config_set("replica-serve-stale-data", "no")
    follow_nobody(redis)


def pause_writes(redis: "Redis") -> None:
    redis.client_pause(60_000, all=False)


def pause_all(redis: "Redis") -> None:
    redis.client_pause(60_000)


def require_a_password(redis: "Redis") -> None:
    redis.config_set("requirepass", "somebody-knows-it")


def switch_off_the_append_only_file(redis: "Redis") -> None:
    redis.config_set("appendonly", "no")


@pytest.mark.parametrize(
    ("do", "name", "words"),
    [
        (fill, "writes", ("OOM", "raise maxmemory")),
        (want_replicas, "writes", ("NOREPLICAS", "min-replicas-to-write")),
        (follow_nobody, "durability", ("replica", "name the primary")),
        (follow_nobody_and_say_so, "redis", ("MASTERDOWN", "name the primary")),
        (pause_writes, "writes", ("clients are paused", "CLIENT UNPAUSE")),
        (pause_all, "redis", ("does not answer",)),
        (require_a_password, "redis", ("NOAUTH", "password")),
        (switch_off_the_append_only_file, "durability", ("appendonly yes",)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_whenever_a_delivery_would_be_refused_the_cause_is_named(
    do: Do, name: str, words: tuple[str, ...], own_server: EmbeddedServer
) -> None:
    settings = make_settings(own_server.url)
    assert failures(settings) == []
    assert is_accepted(settings)
    with connect(settings) as redis:
        do(redis)
    (failure,) = failures(settings)
    assert failure.name == name
    said = f"{failure.finding} {failure.remedy}"
    assert all(word in said for word in words), failure
    assert not is_accepted(settings.model_copy(update={"ack_budget": 0.3}))


def test_a_failed_snapshot_is_named(tmp_path: Path) -> None:
    """MISCONF."""
    options = ("--save", "3600 1", "--dbfilename", "appendonlydir")  # a folder: it cannot be written
    with EmbeddedServer(tmp_path / "server", *DURABLE, *options) as server:
        settings = make_settings(server.url)
        with connect(settings) as redis:
            redis.bgsave()
            wait_until(lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "the failure")
        (failure,) = failures(settings)
        assert refuses(failure, "MISCONF", "disk"), failure
        assert not is_accepted(settings)


def test_a_script_that_runs_for_too_long_is_named(own_server: EmbeddedServer) -> None:
    """BUSY."""
    settings = make_settings(own_server.url)

    def run_for_ever() -> None:
        with Redis(port=own_server.port, retry=Retry(NoBackoff(), 0)) as redis:
            redis.config_set("busy-reply-threshold", 1)
            with pytest.raises(RedisError):
                redis.eval("while true do end", 0)

    running = threading.Thread(target=run_for_ever)
    running.start()
    with Redis(port=own_server.port) as redis:
        wait_until(lambda: [f for f in failures(settings) if refuses(f, "BUSY", "SCRIPT KILL")], "the finding")
        redis.execute_command("SCRIPT", "KILL")
    running.join()


@pytest.mark.parametrize("command", ["EVALSHA", "WAITAOF"])
def test_a_command_that_is_switched_off_is_named(command: str, tmp_path: Path) -> None:
    off = ("--rename-command", command, "", "--appendfsync", "everysec")
    with EmbeddedServer(tmp_path / "server", *DURABLE, *off) as server:
        settings = make_settings(server.url)
        (failure,) = failures(settings)
        assert refuses(failure, "ERR", command, "switched off"), failure
        assert not is_accepted(settings)


def test_a_cluster_is_named(tmp_path: Path) -> None:
    with EmbeddedServer(
        tmp_path / "server", *DURABLE, "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    ) as server:
        (failure,) = failures(make_settings(server.url))
        assert failure == CLUSTER.found()


def test_a_database_that_is_not_there_is_named(server: EmbeddedServer) -> None:
    (failure,) = failures(make_settings(server.url.removesuffix("/0") + "/999"))
    assert refuses(failure, "ERR", "no such database", "REDIS_URL"), failure


def test_records_of_another_schema_are_told(redis: "Redis", settings: Settings) -> None:
    redis.set("jobhook:schema", 99)
    (failure,) = failures(settings)
    assert (failure.name, failure.level) == ("schema", "fail")
    assert "upgrade this process" in str(failure.remedy)


@pytest.mark.parametrize("key", ["jobhook:open", "jobhook:queued", "jobhook:wake", "rq:queue:jobhook"])
def test_a_key_that_somebody_has_spoiled_is_named(key: str, redis: "Redis", settings: Settings) -> None:
    redis.set(key, "spoiled")
    (failure,) = failures(settings)
    assert refuses(failure, "WRONGTYPE", f"{key} is a string", "delete that key"), failure
    assert not is_accepted(settings)


# --- the trial itself


def test_a_trial_leaves_nothing_and_counts_for_nothing(redis: "Redis", settings: Settings) -> None:
    assert failures(settings) == []
    assert redis.keys("*") == []


def test_frequent_probes_cost_one_trial(redis: "Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROVEN_SECONDS", 3600.0)
    assert failures(settings) == []  # the server knows the script from now on
    probed = Health(settings)
    probed.check()
    before = calls(redis, "waitaof")
    for _ in range(20):
        assert not [finding for finding in probed.check() if finding.level == "fail"]
    assert calls(redis, "waitaof") == before
    probed.close()


def test_a_trial_that_fails_is_made_again(own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROVEN_SECONDS", 3600.0)
    probed = Health(make_settings(own_server.url))
    with Redis(port=own_server.port) as redis:
        fill(redis)
        assert any(finding.level == "fail" for finding in probed.check())
        redis.config_set("maxmemory", 0)
        assert not any(finding.level == "fail" for finding in probed.check())
    probed.close()


@contextmanager
def black_hole() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


def test_the_checks_end_in_time_whatever_redis_does(
    own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask."""
    probed = Health(make_settings(own_server.url))
    with frozen(own_server.pid):
        (finding,) = probed.check()
        assert finding.finding == "does not answer (TimeoutError)"
    with black_hole() as url:
        lost = Health(make_settings(url))
        monkeypatch.setattr(health, "ANSWER_SECONDS", 0.1)
        answers: list[list[Check]] = []
        asking = [threading.Thread(target=lambda: answers.append(lost.check())) for _ in range(50)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert {finding.finding for answer in answers for finding in answer} == {"has not answered within 0.1 s"}
        assert sum(thread.name == "health" for thread in threading.enumerate()) == 1
        wait_until(lambda: not any(thread.name == "health" for thread in threading.enumerate()), "its end")
        lost.close()
    probed.close()


# --- who works


def test_a_supervisor_that_is_silent_is_missed_by_name(
    inbox: Inbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: another one that is well does not hide it."""
    inbox.sweep()
    Heartbeat(inbox).beat()
    assert findings(settings) == {}
    seconds, _ = inbox.redis.time()
    inbox.redis.zadd("jobhook:supervisors", {"elsewhere:7": (seconds - 60) * 1000})
    missed = findings(settings)["supervisors"]
    assert missed.level == "warn"
    assert re.fullmatch(r"elsewhere:7 was last heard of 6\d s ago", missed.finding)


def test_a_supervisor_is_forgotten_when_it_leaves_or_after_an_hour(inbox: Inbox) -> None:
    seconds, _ = inbox.redis.time()
    inbox.redis.zadd("jobhook:supervisors", {"long ago:7": (seconds - 3601) * 1000})
    present = Heartbeat(inbox)
    present.beat()
    assert len(inbox.stats().supervisors) == 1
    assert 3590 < inbox.redis.ttl("jobhook:supervisors") <= 3600
    present.leave()
    assert inbox.stats().supervisors == {}


def test_a_successor_on_the_same_machine_forgets_those_that_were_killed(inbox: Inbox) -> None:
    host = socket.gethostname()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    seconds, _ = inbox.redis.time()
    living, elsewhere = f"{host}:{os.getppid()}", f"not-{host}:{child}"
    silent = dict.fromkeys([f"{host}:{child}", living, elsewhere], (seconds - 60) * 1000)
    inbox.redis.zadd("jobhook:supervisors", silent)
    Heartbeat(inbox).beat()
    assert inbox.stats().supervisors.keys() == {living, elsewhere, f"{host}:{os.getpid()}"}


def test_a_suspension_is_told(inbox: Inbox, settings: Settings) -> None:
    inbox.sweep()
    inbox.redis.set("rq:suspended", 1)
    suspended = findings(settings)["suspended"]
    assert (suspended.level, suspended.remedy) == ("warn", "run `rq resume` when they may be")
