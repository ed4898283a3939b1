"""What deploy/TROUBLESHOOTING.md says that Redis users need is enough, and is what is needed."""

import base64
import re
from typing import Any

import httpx
import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.simulator import Api, serve
from tests.support import wait_until
from tests.support.servers import bytes_server
from tests.support.sink import sink
from tests.support.stack import KEY, ROOT, MakeStack, Stack

PAGE = (ROOT / "deploy" / "TROUBLESHOOTING.md").read_text()
USERS = dict(re.findall(r"^ACL SETUSER jobhook-(\w+) (on .*)$", PAGE, re.MULTILINE))
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def url(server: EmbeddedServer, user: str) -> str:
    return f"redis://jobhook-{user}:password@127.0.0.1:{server.port}/0"


@pytest.fixture
def allowed(own_server: EmbeddedServer) -> EmbeddedServer:
    """A server with the users of the page."""
    with Redis(port=own_server.port) as redis:
        for user, rules in USERS.items():
            redis.execute_command("ACL", "SETUSER", f"jobhook-{user}", "reset", *rules.split())
    return own_server


def denied(server: EmbeddedServer) -> set[tuple[str, str]]:
    """What users were refused since the server began: who, and the command, key or channel."""
    with Redis(port=server.port) as redis:
        log: Any = redis.acl_log()
        return {(entry["username"], entry["object"]) for entry in log}


def command(stack: Stack, *arguments: str) -> str:
    """What a command of the command line prints."""
    done = stack.jobhook(*arguments)
    assert done.returncode == 0, (arguments, done.stdout + done.stderr)
    return done.stdout


def change_by_filter(stack: Stack, dead: str) -> None:
    """What changes events by a filter, on the one that is dead."""
    assert "1 of 1 put back" in command(stack, "replay", "--state", "dead", "--yes")
    stack.wait_for(dead, "dead")
    assert "1 of 1 discarded" in command(stack, "discard", "--state", "dead", "--yes")
    assert "erased" in command(stack, "erase", "--search", "forged", "--yes")
    assert "erase" in command(stack, "audit")


@pytest.mark.timeout(240)  # it runs some twenty commands, each a process
def test_the_whole_service_runs_with_the_least(allowed: EmbeddedServer, make_stack: MakeStack) -> None:
    """Receiver, workers and command line, forwarding and the API client, redeliveries, retries and crashes."""
    with serve(Api(KEY)) as api, bytes_server() as destination, sink() as taker:
        destination.answer(OK)
        stack = make_stack(
            allowed.url,
            JOBHOOK_HANDLERS="tests.support.acl_handlers",
            JOBSITEON_API_URL=f"{api.url}/v1",
            JOBHOOK_API_PLAIN_LOOPBACK="true",
            JOBHOOK_FORWARD_URLS=f"acl.ok={destination.url}/",
            JOBHOOK_FORWARD_SECRET=SECRET,
            JOBHOOK_ALERT_URLS=taker.url(),
        )
        stack.start_receiver(REDIS_URL=url(allowed, "receiver"))
        stack.start("workers", "workers", JOBHOOK_WORKERS="2", REDIS_URL=url(allowed, "workers"))
        ids = {type: stack.deliver_event(f"acl.{type}", type) for type in ("ok", "again", "crash", "read", "dead")}
        others = [stack.deliver_event("acl.ok", f"evt_{n}") for n in range(10)]  # of the same resource
        assert stack.deliver_event("acl.ok", "ok") == ids["ok"]
        assert stack.deliver_event("acl.ok", "ok", changed=True) != ids["ok"]
        unfinished = set(stack.inbox.stats().states) - {"done", "dead"}
        wait_until(
            lambda: denied(allowed) or not any(stack.inbox.stats().states[state] for state in unfinished), "all events"
        )
        assert denied(allowed) == set()
        for type, id in ids.items():
            stack.wait_for(id, "dead" if type == "dead" else "done")
        for id in others:
            stack.wait_for(id, "done")
        assert stack.deliver_event("acl.dead", "dead") == ids["dead"]  # revives it
        stack.wait_for(ids["dead"], "dead")
        stack.environment["REDIS_URL"] = url(allowed, "cli")
        assert ids["ok"] in command(stack, "events")
        assert command(stack, "event", ids["ok"][:12])
        assert ids["dead"] in command(stack, "export", "--state", "dead", "--error", "*", "--type", "acl.*")
        assert "acl.ok" in command(stack, "stats")
        for id in (ids["ok"], ids["dead"]):
            assert "queued" in command(stack, "replay", id)
            stack.wait_for(id, "dead" if id == ids["dead"] else "done")
        assert denied(allowed) == set()
        assert stack.deliver(b'{"id":"forged"}', **{"X-Signature": "0" * 64}).status_code == 401
        wait_until(lambda: "No " not in command(stack, "rejected"), "the rejected delivery")
        assert command(stack, "rejected", "--admit", "--yes")
        assert " fail " not in command(stack, "doctor")
        assert "current" in command(stack, "keys")
        change_by_filter(stack, ids["dead"])
        wait_until(lambda: denied(allowed) or taker.taken, "the alert of the dead event")
        assert "json #1: last sent" in command(stack, "alerts")
        assert "Paused" in command(stack, "pause", "acl.*")
        assert "Resumed" in command(stack, "resume")
        refused = httpx.post(stack.url, content=b"{}")
        assert refused.status_code == 401
        wait_until(lambda: denied(allowed) or stack.redis.xlen("jobhook:rejected"), "the rejected delivery to be kept")
        assert "no header" in command(stack, "rejected")
        assert command(stack, "diagnose")
        assert command(stack, "rejected", "--admit", "--yes")
        answers = [httpx.get(f"http://127.0.0.1:{stack.port}/{path}", timeout=10) for path in ("readyz", "metrics")]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert denied(allowed) == set()
        assert answers[0].json()["problems"] == []
    assert denied(allowed) == set()
    assert "redis does not answer" not in stack.logs()


def test_workers_may_use_every_command_of_every_script() -> None:
    """Also those that heal what is rare."""
    scripts = "".join(file.read_text() for file in ROOT.glob("app/inbox/scripts/*.lua"))
    commands = {command.lower() for command in re.findall(r"redis\.p?call\('([A-Z]+)'", scripts)}
    assert {f"+{command}" for command in commands} <= set(USERS["workers"].split())
