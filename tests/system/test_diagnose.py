"""From a refused delivery to an accepted one, with the command and a real receiver (P10)."""

import json
import os
import re
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.embedded import EmbeddedServer
from app.delivery.samples import sample
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support.providers import PROVIDERS, URL, Provider
from tests.support.stack import KEY, MakeStack

CASES = sorted((Path(__file__).parents[1] / "cases" / "signatures").glob("*.http"))
CASE_KEY = "jso_demo_5f1c7a90b2d84e6f"
BODY = b'{"id": "evt_1", "type": "invoice.paid", "data": {"id": "inv_1"}}'


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    return tmp_path / "request.http"


def diagnose(file: Path, *options: str, key: str = CASE_KEY, input: str | None = None) -> Result:
    result = CliRunner().invoke(
        app, ["diagnose", "--file", str(file), *options], env={"JOBSITEON_API_KEY": key}, input=input
    )
    assert key not in result.output
    return result


def write(file: Path, headers: dict[str, str], body: bytes = BODY) -> Path:
    lines = [
        f"POST {PATH} HTTP/1.1",
        "Host: hooks.example.com",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    file.write_bytes("\n".join([*lines, "", ""]).encode() + body)
    return file


def found(result: Result) -> dict[str, str]:
    """The settings that are named first."""
    assert result.exit_code == 0, result.output
    settings = json.loads(result.stdout)["matches"][0]["settings"]
    assert all(isinstance(value, str) for value in settings.values())
    return dict(settings)


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_the_command_says_what_is_wrong(file: Path) -> None:
    key = "YS1kZW1vLWtleS1vZi10aGlydHktdHdvLWJ5dGVzISE=" if file.name.startswith("3") else CASE_KEY
    result = diagnose(file, "--json", "--url", URL, key=key)
    said = json.loads(result.stdout)
    assert result.exit_code == 0
    assert said.keys() == {"matches", "causes"}
    assert all(match.keys() == {"settings", "key", "says"} for match in said["matches"])
    assert all(cause.keys() == {"cause", "says"} for cause in said["causes"])
    assert bool(said["matches"]) == (file.name[0] in "123456")
    assert bool(said["causes"]) == (file.name[0] in "78")


def test_for_people_it_writes_lines_to_paste() -> None:
    output = diagnose(CASES[5]).stdout
    assert "JOBHOOK_SIGNATURE_CONTENT='{body}\\n'" in output
    assert "the body and a newline" in output
    assert diagnose(CASES[7]).stdout.startswith("another key\n")


def test_what_is_pasted_is_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines go into `.env`, which has its own ways with backslashes and braces."""
    lines = re.findall(r"^ *(JOBHOOK_\w+=.*)$", diagnose(CASES[5]).stdout, re.MULTILINE)
    (tmp_path / "settings.env").write_text("\n".join([f"JOBSITEON_API_KEY={CASE_KEY}", *lines]) + "\n")
    monkeypatch.setenv("JOBHOOK_ENV_FILE", str(tmp_path / "settings.env"))
    present = CliRunner().invoke(app, ["diagnose", "--json", "--file", str(CASES[5])])
    assert found(present) == {}


def test_a_key_can_be_typed(request_file: Path) -> None:
    write(request_file, {"X-Signature": sign(b"the key of the sender", BODY)})
    result = diagnose(request_file, "--json", "--key-prompt", input="the key of the sender\n")
    (match,) = json.loads(result.stdout[result.stdout.index("{") :])["matches"]
    assert match["key"] == "typed"
    assert "the key of the sender" not in result.output


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("{}", "is no HTTP request")])
def test_what_cannot_be_read_is_said(request_file: Path, content: str | None, said: str) -> None:
    if content is not None:
        request_file.write_text(content)
    result = diagnose(request_file)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_url_has_to_be_whole() -> None:
    result = diagnose(CASES[0], "--url", "hooks.example.com")
    assert result.exit_code == 2
    assert "write the whole URL" in result.stderr


def test_a_request_comes_through_a_pipe() -> None:
    environment = os.environ | {"JOBSITEON_API_KEY": CASE_KEY}
    result = CliRunner().invoke(
        app, ["diagnose", "--file", "-", "--json"], env=environment, input=CASES[0].read_bytes()
    )
    assert found(result) == {"JOBHOOK_SIGNATURE_ALGORITHM": "sha1"}


def provider(name: str) -> Provider:
    (one,) = (one for one in PROVIDERS if one.name == name)
    return one


@pytest.mark.parametrize("name", ["Stripe", "Standard Webhooks", "HubSpot, version 3", "Contentful"])
def test_a_receiver_with_these_settings_accepts_the_next_one(
    name: str, request_file: Path, server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """And refuses what is forged, altered or late; what `jobhook send` signs by them is accepted too."""
    sender = provider(name)
    key = sender.configured_key
    settings = dict(sender.environment)
    if name != "Contentful":  # which nobody can guess
        write(request_file, sender.send(BODY, time.time()))
        settings = found(diagnose(request_file, "--json", "--url", URL, key=key)) | {"JOBSITEON_API_KEY": key}
    stack = make_stack(server.url, **settings)
    stack.start_receiver()

    def status(body: bytes, signed: bytes, age: float = 0.0) -> int:
        return httpx.post(stack.url, content=body, headers=sender.send(signed, time.time() - age)).status_code

    next_one = sample()
    assert status(next_one, next_one) == 200
    assert status(next_one, next_one + b" ") == 401
    assert status(next_one, next_one, age=1000) == 401
    assert [line["why"] for line in stack.log_lines("refused", at_least=2)] == [
        "no key fits",
        "timestamp out of tolerance",
    ]
    sent = stack.start("send", "app", "send", "--url", stack.url, "--json")
    assert sent.wait(30) == 0
    assert stack.inbox.stats().states["queued"] == 2


def test_the_log_says_why_and_the_answer_does_not(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P3: whatever is wrong, the sender gets the one answer."""
    stack = make_stack(server.url)
    stack.start_receiver()
    good = sign(KEY.encode(), BODY)
    sent: list[list[tuple[str, str]]] = [
        [],
        [("X-Signature", good), ("X-Signature", good)],
        [("X-Signature", "0" * 40)],
        [("X-Signature", "canary")],
        [("X-Signature", "0" * 64)],
    ]
    answers = [httpx.post(stack.url, content=BODY, headers=headers) for headers in sent]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}
    faults = ["no header", "two headers", "looks like SHA-1", "malformed header", "no key fits"]
    assert [line["why"] for line in stack.log_lines("refused", at_least=len(faults))] == faults
    assert "canary" not in stack.logs()
