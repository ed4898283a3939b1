"""P7: no key, signature or payload content in logs, metrics, answers or process titles.

Canaries go in wherever a secret or a payload can; then everything that comes out is searched for them.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.simulator import Api, serve
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.processes import children
from tests.support.stack import MakeStack, Stack

KEY, OLD_KEY = "canary-key-1-abcdefghij", "canary-key-2-abcdefghij"
CANARY = "canary-payload"
MAIL = f"{CANARY}@example.test"
FAILURES = ("test.fail", "test.exit", "test.hang", "test.segfault", "test.permanent", "test.ok", "nobody.wants")


def titles(*pids: int) -> str:
    return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)


def deliver(stack: Stack, type: str) -> str:
    body = f'{{"type":"{type}","data":{{"id":"{CANARY}-id","mail":"{MAIL}"}}}}'.encode()
    headers = {"X-Signature": sign(KEY.encode(), body), "X-Canary": CANARY, "User-Agent": CANARY}
    answer = httpx.post(stack.url, content=body, headers=headers)
    assert answer.status_code == 200
    assert CANARY not in answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_that_comes_out_holds_a_secret(server: EmbeddedServer, make_stack: MakeStack, log_format: str) -> None:
    """P7: on the way through success, every kind of failure, and Redis errors."""
    stack = make_stack(
        server.url,
        JOBSITEON_API_KEY=KEY,
        JOBSITEON_PREVIOUS_API_KEYS=OLD_KEY,
        JOBHOOK_MAX_ATTEMPTS="1",
        JOBHOOK_HANDLER_TIMEOUT="1s",
        JOBHOOK_LOG_FORMAT=log_format,
        JOBHOOK_LOG_LEVEL="debug",
        PYTHONFAULTHANDLER="1",
    )
    receiver = stack.start_receiver()
    supervisor = stack.start_workers()
    ids = [deliver(stack, type) for type in FAILURES]
    forged = sign(b"another key", CANARY.encode())
    refusal = httpx.post(stack.url, content=CANARY.encode(), headers={"X-Signature": forged})
    for id in ids:
        wait_until(lambda event=id: stack.inbox.get(event).state in {"done", "dead"}, id)  # type: ignore[misc]
    metrics = httpx.get(f"http://127.0.0.1:{stack.port}/metrics").text
    ready = httpx.get(f"http://127.0.0.1:{stack.port}/readyz").text
    processes = titles(receiver.pid, supervisor.pid, *children(supervisor.pid))
    stack.redis.client_kill_filter(_type="normal", skipme=True)
    os.kill(supervisor.pid, signal.SIGTERM)
    supervisor.wait(30)
    out = stack.logs() + metrics + ready + processes + refusal.text
    assert "attempt" in out
    assert "Fatal Python error: Segmentation fault" in out  # a dying process has told what it was doing
    signatures = [sign(KEY.encode(), stack.inbox.get(id).body) for id in ids]
    for secret in (KEY, OLD_KEY, CANARY, "canary-message", forged, *signatures):
        assert secret not in out


def test_a_wrong_setting_is_told_without_its_value(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P7."""
    stack = make_stack(server.url)
    for name, environment in (
        ("short", {"JOBSITEON_API_KEY": "canary-short"}),
        ("url", {"REDIS_URL": "http://user:canary-password@host"}),
    ):
        process = stack.start(name, "app", "serve", **environment)
        assert process.wait(20) == 2
        text = stack.log_file(name).read_text()
        assert "canary" not in text
        assert text.count("\n") == 1


DOWN = "redis://user:canary-password@127.0.0.1:1/0"
COMMANDS = (("serve",), ("doctor",), ("doctor", "--json"), ("settings",), ("events",), ("event", "0" * 32), ("work",))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_process_that_cannot_go_on_does_not_tell_secrets(
    server: EmbeddedServer, make_stack: MakeStack, command: tuple[str, ...]
) -> None:
    """P7: with Redis away, and with handlers that fail while they are imported."""
    stack = make_stack(server.url, JOBSITEON_API_KEY=KEY, JOBSITEON_PREVIOUS_API_KEYS=OLD_KEY, PYTHONFAULTHANDLER="1")
    process = stack.start("dies", "app", *command, REDIS_URL=DOWN, JOBHOOK_HANDLERS="tests.support.no_such_module")
    if command == ("serve",):  # it waits for Redis to come up
        wait_until(lambda: stack.log_lines("Application startup complete."), "the start")
        process.send_signal(signal.SIGABRT)  # with faulthandler, this is how a hung one is looked into
    process.wait(30)
    text = stack.logs()
    assert ("Fatal Python error: Aborted" if command == ("serve",) else " ") in text
    assert not [secret for secret in (KEY, OLD_KEY, "canary-password") if secret in text]


def test_the_tools_show_no_secret_and_a_payload_only_when_asked(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P7: and Redis keeps payloads in the records of events, and nowhere else."""
    stack = make_stack(server.url, JOBSITEON_API_KEY=KEY, JOBHOOK_MAX_ATTEMPTS="1")
    stack.start_receiver()
    stack.start_workers()
    ids = [deliver(stack, type) for type in ("test.ok", "test.permanent")]
    for id in ids:
        wait_until(lambda event=id: stack.inbox.get(event).state in {"done", "dead"}, id)  # type: ignore[misc]
    shown = {
        command: told(stack, *command.split())
        for command in ("doctor", "settings", "events", "events --json", f"event {ids[0]}", f"event {ids[1]} --json")
    }
    signatures = [sign(KEY.encode(), stack.inbox.get(id).body) for id in ids]
    for command, text in shown.items():
        assert text, command
        assert not [secret for secret in (KEY, MAIL, *signatures) if secret in text], command
    assert MAIL in told(stack, "event", ids[0], "--body", "--json")
    kept = stored(stack)
    assert [key for key, value in kept.items() if MAIL in value] == [f"jobhook:event:{id}" for id in sorted(ids)]
    assert not [key for key, value in kept.items() for secret in (KEY, *signatures) if secret in key + value]


def test_no_api_key_is_kept_with_what_it_was_answered(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P7: the cache of the API's answers is in Redis too."""
    api = Api(KEY)
    api.cache_control = "max-age=60"
    with serve(api) as served:
        stack = make_stack(
            server.url,
            JOBSITEON_API_KEY=KEY,
            JOBHOOK_HANDLERS="tests.support.api_handlers",
            JOBSITEON_API_URL=f"{served.url}/v1",
            JOBHOOK_API_PLAIN_LOOPBACK="true",
        )
        queue_events(stack.settings, 1, "api.read")
        queue_events(stack.settings, 1, "api.read_async")
        stack.start_workers()
        wait_until(lambda: stack.inbox.stats().states["done"] == 2, "both")
        kept = stored(stack)
    assert [key for key in kept if key.startswith("jobhook:api:cache")]
    assert not [key for key, value in kept.items() if KEY in key + value]


def told(stack: Stack, *command: str) -> str:
    """What a command of the command line prints."""
    process = stack.start(f"told {len(stack.processes)}", "app", *command)
    process.wait(30)
    return stack.log_file(f"told {len(stack.processes) - 1}").read_text()


READ: dict[str, Callable[[Any, bytes], Any]] = {
    "string": lambda redis, key: [redis.get(key)],
    "hash": lambda redis, key: [part for item in redis.hgetall(key).items() for part in item],
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: redis.zrange(key, 0, -1),
}


def stored(stack: Stack) -> dict[str, str]:
    """All that is in Redis, as text, but for what the tests' own handlers leave there."""
    keys = sorted(key for key in stack.redis.scan_iter() if not key.startswith(b"effects:"))
    contents = [b"\n".join(READ[_type(stack, key)](stack.redis, key)) for key in keys]
    return {key.decode("latin-1"): content.decode("latin-1") for key, content in zip(keys, contents, strict=True)}


def _type(stack: Stack, key: bytes) -> str:
    kind: Any = stack.redis.type(key)
    return str(kind.decode())
