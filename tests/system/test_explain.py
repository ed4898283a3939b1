"""`jobhook explain`: what is read of a payload and from where, as a person and as a script see it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.errors import ConfigError
from tests.support.deliveries import accept_all, received
from tests.support.stack import KEY

Explain = Callable[..., Result]

ENVELOPE = {"id": "evt_1", "type": "invoice.paid", "created_at": 1772528400, "data": {"id": "inv_1"}, "attempt": 2}
ODD = {"meta": {"uid": "e1", "what": "paid", "when": "1772528400"}, "invoice_no": "inv_1", "retry_count": 1}


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    """Explains a payload in a file. There is neither a Redis nor a key."""

    def run(payload: Any, *options: str) -> Result:
        file = tmp_path / "body.json"
        file.write_bytes(payload if isinstance(payload, bytes) else orjson.dumps(payload))
        return CliRunner().invoke(app, ["explain", "--file", str(file), *options], catch_exceptions=False)

    return run


def as_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_it_tells_what_is_read_and_from_where(explain: Explain) -> None:
    lines = explain(ENVELOPE).output.splitlines()
    assert "event id  evt_1  from id" in lines
    assert "  nothing there: event_id, event.id, eventId, event.eventId" in lines
    assert "type      invoice.paid  from type" in lines
    assert "time      2026-03-03T09:00:00.000Z  from created_at" in lines
    assert "resource  inv_1  from data.id" in lines
    assert "The same event: this event id and the same type and value of data." in lines
    assert "Does not count: created_at, attempt" in lines


def test_the_same_for_scripts(explain: Explain) -> None:
    shown = as_json(explain(ENVELOPE, "--json"))
    assert {
        part: (shown[part]["value"], shown[part]["from"]) for part in ("event_id", "type", "occurred_at", "resource")
    } == {
        "event_id": ("evt_1", "id"),
        "type": ("invoice.paid", "type"),
        "occurred_at": ("2026-03-03T09:00:00.000Z", "created_at"),
        "resource": ("inv_1", "data.id"),
    }
    assert shown["resource"]["tried"] == [
        {"path": "data.object.id", "outcome": "absent"},
        {"path": "data.id", "outcome": "read"},
    ]
    assert shown["same_event"] == {
        "decides": "event id",
        "counts": ["type", "data"],
        "does_not_count": ["created_at", "attempt"],
    }
    assert shown["id"] == received(orjson.dumps(ENVELOPE)).id
    assert shown["json"] is True


def test_it_tells_what_was_passed_over(explain: Explain) -> None:
    shown = explain({"type": "a sentence, not a type", "event_id": True}).output
    assert "type      unknown\n  passes for none: type\n" in shown
    assert "event id  none\n  passes for none: event_id\n" in shown


def test_what_is_not_found_can_be_set(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "JOBHOOK_EVENT_ID_PATH, JOBHOOK_TYPE_PATH" in explain(ODD).output
    for name, path in {
        "EVENT_ID": "meta.uid",
        "TYPE": "meta.what",
        "TIME": "meta.when",
        "RESOURCE": "invoice_no",
    }.items():
        monkeypatch.setenv(f"JOBHOOK_{name}_PATH", path)
    shown = as_json(explain(ODD, "--json"))
    assert [shown[part]["value"] for part in ("event_id", "type", "occurred_at", "resource")] == [
        *("e1", "paid", "2026-03-03T09:00:00.000Z", "inv_1")
    ]
    assert shown["event_id"]["from"] == "meta.uid"
    assert (
        "Set: JOBHOOK_EVENT_ID_PATH, JOBHOOK_TYPE_PATH, JOBHOOK_TIME_PATH, JOBHOOK_RESOURCE_PATH" in explain(ODD).output
    )


@pytest.mark.parametrize("name", ["EVENT_ID", "TYPE", "TIME", "RESOURCE"])
def test_a_path_that_is_none_is_refused(explain: Explain, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """P10."""
    monkeypatch.setenv(f"JOBHOOK_{name}_PATH", "meta..uid")
    with pytest.raises(ConfigError, match=f"JOBHOOK_{name}_PATH: write names separated by dots"):
        explain(ODD)


@pytest.mark.parametrize(
    ("body", "decides", "says"),
    [
        (b'{"retry_count":1,"n":1}', "value", "the same value of n."),
        (b"[1,2]", "value", "the same value of the whole payload."),
        (b'{"n":1,"n":2}', "bytes", "the same bytes, because a parser would lose something"),
        (b'{"n":18446744073709551616}', "bytes", "the same bytes, because a parser would lose something"),
        (b"status=paid", "bytes", "the same bytes, because it is not JSON by the letter"),
        (b"", "bytes", "the same bytes, because it is not JSON by the letter"),
        (b'{"event_id":"e1","n":NaN}', "bytes", "this event id and the same bytes"),
        (
            b'{"event_id":"e1","n":1,"sent_at":2}',
            "event id",
            "this event id and the same type and value of event_id, n.",
        ),
    ],
)
def test_it_tells_what_makes_another_delivery_the_same_event(
    explain: Explain, body: bytes, decides: str, says: str
) -> None:
    """P4."""
    assert says in explain(body).output
    shown = as_json(explain(body, "--json"))["same_event"]
    assert shown["decides"] == ("event id" if b"event_id" in body else decides)
    assert (shown["counts"] is None) == (decides == "bytes")


def test_it_says_so_if_the_id_is_trusted(explain: Explain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_SAME_ID", "duplicate")
    assert "whatever has this event id (JOBHOOK_SAME_ID=duplicate)" in explain(ENVELOPE).output
    assert "the same value of" in explain({"n": 1}).output


def test_nothing_in_a_payload_is_obeyed_by_the_terminal(explain: Explain) -> None:
    shown = explain({"event_id": "\x1b[2J[bold]e1", "\x1b[31m": 1}).output
    assert "\x1b" not in shown
    assert "[bold]e1" in shown


def test_half_a_surrogate_pair_can_be_shown(explain: Explain) -> None:
    body = b'{"event_id":"e\\ud800","\\ud800":1}'
    assert as_json(explain(body, "--json"))["event_id"]["value"] == "e?"
    assert "event id  e?" in explain(body).output


def test_it_reads_standard_input() -> None:
    result = CliRunner().invoke(app, ["explain", "--file", "-", "--json"], input=orjson.dumps(ENVELOPE))
    assert as_json(result)["event_id"]["value"] == "evt_1"


@pytest.mark.parametrize("arguments", [[], ["0123", "--file", "body.json"]])
def test_it_wants_an_event_or_a_file(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["explain", *arguments])
    assert (result.exit_code, "give an event's id, or --file" in result.output) == (2, True)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["explain", "--file", str(tmp_path / "none")])
    assert (result.exit_code, "No such file" in result.output) == (2, True)


@pytest.fixture
def explain_event(redis: "Redis", server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Explain:
    monkeypatch.setenv("JOBSITEON_API_KEY", KEY)
    monkeypatch.setenv("REDIS_URL", server.url)
    return lambda *arguments: CliRunner().invoke(app, ["explain", *arguments])


def test_it_explains_a_recorded_event(explain_event: Explain, settings: Settings) -> None:
    first, conflict = accept_all(
        settings, *(received(orjson.dumps(ENVELOPE | {"data": {"id": "inv_1", "n": n}})) for n in range(2))
    )
    shown = as_json(explain_event(first.id[:12], "--json"))
    assert (shown["id"], shown["recorded_as"], shown["conflict_of"]) == (first.id, first.id, None)
    assert "recorded as" not in explain_event(first.id).output
    assert f"recorded as {conflict.id}: a conflict" in explain_event(conflict.id).output
    assert as_json(explain_event(conflict.id, "--json"))["conflict_of"] == first.id


def test_it_says_so_if_the_event_would_have_another_id_now(
    explain_event: Explain, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = accept_all(settings, received(orjson.dumps(ODD)))
    monkeypatch.setenv("JOBHOOK_EVENT_ID_PATH", "meta.uid")
    assert f"recorded as {receipt.id}: under other settings" in explain_event(receipt.id).output
