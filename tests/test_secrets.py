"""P7: no key, signature or payload content in logs, metrics, answers or process titles.

Canaries go in wherever a secret or a payload can; then everything that comes out is searched for them.
"""

import os
import signal
from pathlib import Path

import httpx
import pytest

from app.embedded import EmbeddedServer
from app.signature import sign
from tests.conftest import MakeStack
from tests.support import wait_until
from tests.support.stack import Stack, children

KEY, OLD_KEY = "canary-key-1-abcdefghij", "canary-key-2-abcdefghij"
CANARY = "canary-payload"
FAILURES = ("test.fail", "test.exit", "test.hang", "test.segfault", "test.permanent", "test.ok", "nobody.wants")


def titles(*pids: int) -> str:
    return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)


def deliver(stack: Stack, type: str) -> str:
    body = f'{{"type":"{type}","data":{{"id":"{CANARY}-id","mail":"{CANARY}@example.test"}}}}'.encode()
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
