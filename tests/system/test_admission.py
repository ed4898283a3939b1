"""From a wrong setting to nothing lost: what was refused is diagnosed, and taken in once the settings are right."""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.delivery.samples import sample
from app.delivery.signature import sign
from app.errors import SignatureFault
from app.inbox.inbox import Inbox
from app.inbox.rejected import KEY, pack_head, reject_arguments
from app.inbox.scripts import REJECT
from tests.support import wait_until
from tests.support.stack import KEY as API_KEY
from tests.support.stack import PATIENT_ACK_SECONDS, MakeStack

DELIVERIES = 20

Command = Callable[..., Result]


@pytest.fixture
def command(server: EmbeddedServer) -> Command:
    """Runs a command as one does who has these settings."""

    def run(*arguments: str, **environment: str) -> Result:
        given = {"JOBSITEON_API_KEY": API_KEY, "REDIS_URL": server.url, "JOBHOOK_ACK_BUDGET": f"{PATIENT_ACK_SECONDS}s"}
        return CliRunner().invoke(app, arguments, env=given | environment)

    return run


def other_scheme(body: bytes) -> dict[str, str]:
    """The headers of a sender that signs a timestamp too, with another hash and a header of its own."""
    at = str(int(time.time()))
    mac = hmac.new(API_KEY.encode(), f"{at}.".encode() + body, hashlib.sha512).hexdigest()
    return {"X-Provider-Signature": f"t={at},v1={mac}"}


def reject(
    redis: Redis,
    settings: Settings,
    body: bytes = b"{}",
    signature: str | None = "0" * 64,
    fault: SignatureFault = "no key fits",
    received: float | None = None,
    headers: dict[str, str] | None = None,
) -> str:
    """Keeps a rejected delivery, as a receiver does; its id."""
    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    if signature is not None:
        given.append((b"x-signature", signature.encode()))
    head = pack_head("POST", b"/webhooks/jobsiteon", b"", given)
    at = time.time() if received is None else received
    arguments: Any = reject_arguments(settings, at, "192.0.2.9", fault, head, body)
    assert redis.eval(REJECT.text, 0, *arguments) == b"kept"
    newest: Any = redis.xrevrange(KEY, count=1)
    return str(newest[0][0].decode())


def test_doctor_tells_of_refused_deliveries(redis: "Redis", settings: Settings, command: Command) -> None:
    """P10: whoever does not know that there are any does not look for them."""
    assert "rejected" not in [check["check"] for check in json.loads(command("doctor", "--json").stdout)]
    for _ in range(2):
        reject(redis, settings, received=1_795_000_000)
    (found,) = [check for check in json.loads(command("doctor", "--json").stdout) if check["check"] == "rejected"]
    assert found["level"] == "warn"
    assert "signature: 2, the last one at 2026-11-1" in found["finding"]
    assert "jobhook diagnose" in found["remedy"]


def test_from_a_wrong_setting_to_nothing_lost(server: EmbeddedServer, make_stack: MakeStack, command: Command) -> None:
    """P10."""
    stack = make_stack(server.url)
    receiver = stack.start_receiver()
    bodies = [sample("test.ok") for _ in range(DELIVERIES)]
    forged = httpx.post(stack.url, content=b'{"forged":1}', headers={"X-Provider-Signature": f"t=1,v1={'0' * 128}"})
    for body in bodies:
        assert httpx.post(stack.url, content=body, headers=other_scheme(body)).status_code == forged.status_code == 401
    wait_until(lambda: stack.redis.xlen(KEY) == DELIVERIES + 1, "all to be kept")
    listed = json.loads(command("rejected", "--json").stdout)
    assert {one["fault"] for one in listed} == {"no header"}
    assert not any(one["verified"] for one in listed)

    found = json.loads(command("diagnose", "--json").stdout)["matches"][0]["settings"]
    assert found
    receiver.terminate()
    receiver.wait(30)
    stack.start_receiver(**found)
    stack.start_workers(2, **found)
    for body in bodies[:7]:  # the sender's own retries
        assert httpx.post(stack.url, content=body, headers=other_scheme(body)).status_code == 200

    admitted = command("rejected", "--admit", "--yes", "--json", **found)
    assert admitted.exit_code == 0, admitted.output
    states = sorted(one["status"] for one in json.loads(admitted.stdout))
    assert states == ["accepted"] * (DELIVERIES - 7) + ["duplicate"] * 7 + ["unverified"]
    for body in bodies[10:]:
        assert httpx.post(stack.url, content=body, headers=other_scheme(body)).json()["status"] == "duplicate"
    wait_until(lambda: stack.inbox.stats().states["done"] == DELIVERIES, "all events to be done")
    stats = stack.inbox.stats()
    assert sum(stats.states.values()) == DELIVERIES
    assert stats.counts["attempts:done"] == DELIVERIES
    assert stack.redis.xlen(KEY) == 1
    again = json.loads(command("rejected", "--admit", "--yes", "--json", **found).stdout)
    assert [one["status"] for one in again] == ["unverified"]


def test_what_does_not_verify_is_admitted_by_nobody(redis: Redis, settings: Settings, command: Command) -> None:
    """P3, P10: neither forged nor altered, nor signed too long before it came."""
    good = b'{"type":"job.created","id":"evt_1"}'
    forged = reject(redis, settings)
    altered = reject(redis, settings, good + b" ", sign(API_KEY.encode(), good))
    result = command("rejected", "--admit", forged, altered, "--json")
    assert result.exit_code == 1
    assert [(one["status"], one["event"]) for one in json.loads(result.stdout)] == [("unverified", None)] * 2
    assert command("rejected", "--admit", "--yes").exit_code == 0
    assert redis.xlen(KEY) == 2
    assert redis.zcard("jobhook:open") == 0


@pytest.mark.parametrize(("age", "status"), [(10.0, "accepted"), (1000.0, "unverified")])
def test_a_signed_time_is_compared_with_when_it_came(
    redis: Redis, settings: Settings, command: Command, age: float, status: str
) -> None:
    body, received = b'{"type":"job.created"}', time.time() - 48 * 3600
    at = str(int(received - age))
    mac = hmac.new(API_KEY.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    id = reject(redis, settings, body, mac, received=received, headers={"x-timestamp": at})
    scheme = {
        "JOBHOOK_SIGNATURE_CONTENT": "{timestamp}.{body}",
        "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "X-Timestamp",
    }
    (one,) = json.loads(command("rejected", "--admit", id, "--json", **scheme).stdout)
    assert one["status"] == status


def test_the_event_says_who_admitted_it(redis: Redis, settings: Settings, command: Command, inbox: Inbox) -> None:
    body = b'{"type":"job.created","id":"evt_1"}'
    id = reject(redis, settings, body, sign(API_KEY.encode(), body), headers={"user-agent": "JobsiteOn"})
    output = command("rejected", "--admit", id).stdout
    event = re.search(r"event ([0-9a-f]{32})", output)
    assert event
    meta = inbox.get(event[1]).meta
    assert meta["admitted"].keys() == {"by", "at", "refused_at", "rejected"}
    assert (meta["admitted"]["rejected"], meta["client"], meta["key"]) == (id, "192.0.2.9", "current")
    assert meta["headers"] == {"user-agent": "JobsiteOn"}
    assert f"by {meta['admitted']['by']}" in command("event", event[1]).stdout
    again = command("rejected", "--admit", id)
    assert again.exit_code == 1
    assert "No rejected delivery" in str(again.exception)


def test_one_retried_before_it_was_admitted_is_one_event(redis: Redis, settings: Settings, command: Command) -> None:
    """P4."""
    body = b'{"type":"job.created","id":"evt_1"}'
    for _ in range(3):
        reject(redis, settings, body, sign(API_KEY.encode(), body))
    result = command("rejected", "--admit", "--yes", "--json")
    assert [one["status"] for one in json.loads(result.stdout)] == ["accepted", "duplicate", "duplicate"]
    assert redis.zcard("jobhook:open") == 1
    assert redis.xlen(KEY) == 0


def test_it_is_shown_to_people_as_unverified(redis: Redis, settings: Settings, command: Command) -> None:
    """And nothing in it is obeyed by a terminal."""
    nasty = {"x-hub-signature": "\x1b[31mred[bold]", "user-agent": "\x1b]0;title\x07"}
    id = reject(redis, settings, b'{"a":"\x1b[2J[red]"}', "a" * 40, "looks like SHA-1", headers=nasty)
    outputs = [command("rejected").stdout, command("rejected", id, "--body").stdout, command("diagnose", id).stdout]
    for output in outputs:
        assert "nverified" in output
        assert "\x1b" not in output
        assert "\x07" not in output
        assert id in output
    assert "40 hex digits: looks like SHA-1" in outputs[0]
    assert '{"a":"\\x1b[2J[red]"}' in outputs[1]


def test_the_list_is_limited(redis: Redis, settings: Settings, command: Command) -> None:
    ids = [reject(redis, settings) for _ in range(5)]
    listed = json.loads(command("rejected", "--json", "--limit", "2").stdout)
    assert [one["id"] for one in listed] == ids[:-3:-1]
    (one,) = json.loads(command("rejected", ids[0], "--json", "--body").stdout)
    assert (one["id"], one["body"]) == (ids[0], "{}")


def test_without_an_id_the_newest_is_diagnosed(redis: Redis, settings: Settings, command: Command) -> None:
    body = b'{"type":"job.created"}'
    sha1 = hmac.new(API_KEY.encode(), body, hashlib.sha1).hexdigest()
    id = reject(redis, settings, body, sha1, "looks like SHA-1")
    for arguments in ([], [id]):
        said = json.loads(command("diagnose", *arguments, "--json").stdout)
        assert said["matches"][0]["settings"] == {"JOBHOOK_SIGNATURE_ALGORITHM": "sha1"}
    reject(redis, settings)
    assert not json.loads(command("diagnose", "--json").stdout)["matches"]


@pytest.mark.parametrize("arguments", [["rejected", "1-1"], ["rejected", "x y"], ["diagnose", "1-1"], ["diagnose"]])
def test_what_is_not_there_is_said(redis: Redis, command: Command, arguments: list[str]) -> None:
    result = command(*arguments)
    assert result.exit_code == 1
    assert "o rejected delivery" in str(result.exception or "") + result.output


def test_nothing_rejected_is_no_error(redis: Redis, command: Command) -> None:
    assert "No rejected deliveries" in command("rejected").stdout
    assert json.loads(command("rejected", "--admit", "--yes", "--json").stdout) == []
