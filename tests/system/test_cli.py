"""The commands, as a person and as a script use them, on a real server."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from app import __version__
from app.cli import app, main
from app.cli.bulk import BATCH
from app.cli.embedded import EmbeddedServer, free_port
from app.config.settings import Settings
from app.config.sources import load_settings
from app.config.table import settings_table
from app.errors import ConfigError, EventNotFound
from app.inbox.inbox import Inbox
from app.inbox.record import Delivery, Ended, Outcome, Record
from app.receiver.endpoint import PATH
from app.receiver.intake import Intake
from tests.support import json_lines
from tests.support.deliveries import received
from tests.support.stack import HANDLERS, KEY, ROOT, MakeStack, Stack
from workers.event import Event
from workers.processor import Processor
from workers.registry import Registry

Run = Callable[..., Result]
COMMANDS = (
    "serve",
    "work",
    "alive",
    "dev",
    "send",
    "run",
    "handlers",
    "events",
    "event",
    "replay",
    "export",
    "stats",
    "discard",
    "erase",
    "audit",
    "diagnose",
    "explain",
    "doctor",
    "settings",
    "openapi",
)


def invoke(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, arguments, **options)


@pytest.fixture
def run(redis: "Redis", server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on an empty server."""
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    return invoke


@pytest.fixture
def call_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str]]:
    """Runs `jobhook …` as the installed script does: its exit code and what it says on stderr."""

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["jobhook", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        return exit.value.code, capsys.readouterr().err

    return call


def environment(redis_url: str) -> dict[str, str]:
    return {"JOBSITEON_API_KEY": KEY, "REDIS_URL": redis_url, "JOBHOOK_HANDLERS": HANDLERS}


def python_m_app(redis_url: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        env=os.environ | environment(redis_url) | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def record(settings: Settings, type: str = "invoice.paid", event_id: str = "evt_1", **data: Any) -> str:
    """Puts an event into the inbox; its id."""
    return record_bytes(settings, orjson.dumps({"id": event_id, "type": type, "data": {"id": "inv_1", **data}}))


def record_bytes(settings: Settings, *bodies: bytes) -> str:
    async def accept() -> str:
        intake = Intake(settings)
        receipts = await asyncio.gather(*(intake.accept(_delivery(body)) for body in bodies))
        await intake.close()
        return receipts[-1].id

    return asyncio.run(accept())


def _delivery(body: bytes) -> Delivery:
    made = received(body)
    meta = orjson.loads(made.meta) | {"client": "203.0.113.9", "key": "current"}
    return made._replace(meta=orjson.dumps(meta))


def take(inbox: Inbox, id: str) -> Record:
    taken = inbox.work("worker-1", want=id).taken
    assert taken
    return taken


def end(inbox: Inbox, id: str, outcome: Outcome = "done", error: dict[str, str] | None = None) -> None:
    """An attempt at an event, which takes 7 ms."""
    taken = take(inbox, id)
    started = round((taken.started or 0) * 1000)
    attempt: dict[str, Any] = {
        "attempt": taken.attempt,
        "started": started,
        "ended": started + 7,
        "worker": taken.worker,
    }
    attempt |= {"outcome": outcome} | ({"error": error} if error else {})
    inbox.work("", Ended(id, taken.token, outcome, orjson.dumps(attempt), delay=3600.0), want="")


# --- handlers


MINE = """
from workers import on

@on("invoice.*", one_at_a_time="resource")
@on("job.created")
def book(event): ...

@on("job.*", name="mirror")
def copy(event): ...
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of handlers."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


def test_handlers_shows_each_with_what_waits_and_what_nobody_wants(
    run: Run, inbox: Inbox, settings: Settings, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBHOOK_HANDLERS", "mine")
    for number, type in enumerate(("Invoice.paid", "job.created", "contact.new", "contact.new")):
        record(settings, type, f"evt_{number}")
    done = inbox.work("w").taken
    assert done
    assert done.type == "Invoice.paid"
    inbox.work("w", Ended(done.id, done.token, "done", b'{"started":1,"ended":2,"outcome":"done"}'), want="")
    found = json.loads(run("handlers", "--json").stdout)
    assert found == {
        "handlers": [
            {
                "handler": "mine.book",
                "wants": ["job.created", "invoice.*"],
                "at": f"{mine}:4",
                "options": 'one_at_a_time="resource"',
                "waiting": 1,
            },
            {"handler": "mirror", "wants": ["job.*"], "at": f"{mine}:8", "options": "", "waiting": 1},
        ],
        "unhandled": {"contact.new": 2},
    }
    shown = run("handlers").stdout
    assert re.search(rf"^mirror +job\.\* +{mine}:8 +1 *$", shown, re.MULTILINE)
    assert re.search(r"^  contact\.new  2$", shown, re.MULTILINE)
    assert "contact.new" not in run("handlers", "--since", "0s").stdout


def test_a_record_that_cannot_be_read_is_no_reason_not_to_show_handlers(
    run: Run, inbox: Inbox, settings: Settings, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBHOOK_HANDLERS", "mine")
    damaged, whole = (record(settings, "job.created", f"evt_{n}") for n in range(2))
    gone, spoiled = (record(settings, "job.created", f"evt_{n}") for n in range(2, 4))
    inbox.redis.hset(f"jobhook:event:{damaged}", "meta", "{")
    inbox.redis.delete(f"jobhook:event:{gone}", f"jobhook:event:{spoiled}")
    inbox.redis.set(f"jobhook:event:{spoiled}", "a text")
    shown = json.loads(run("handlers", "--json").stdout)["handlers"]
    assert whole
    assert [entry["waiting"] for entry in shown] == [1, 1]


def test_a_handler_that_has_finished_waits_no_more(
    run: Run, inbox: Inbox, settings: Settings, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBHOOK_HANDLERS", "mine")
    taken = take(inbox, record(settings, "job.created"))
    inbox.record_step(taken.id, taken.token, "handler mirror", b"null")
    waiting = {entry["handler"]: entry["waiting"] for entry in json.loads(run("handlers", "--json").stdout)["handlers"]}
    assert waiting == {"mine.book": 1, "mirror": 0}


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "import os; os._exit(2)", "import no_such_package"])
def test_handlers_and_doctor_say_why_they_cannot_be_imported(
    run: Run, mine: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """P9: whatever exit code a module may end the process with."""
    monkeypatch.setenv("JOBHOOK_HANDLERS", "mine")
    mine.write_text(code)
    assert isinstance(run("handlers").exception, ConfigError)
    assert run("doctor").exit_code == 1


def test_handlers_are_shown_while_redis_is_away(run: Run, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_HANDLERS", "mine")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    shown = run("handlers")
    assert shown.exit_code == 0
    assert re.search(r"^mirror .* \? *$", shown.stdout, re.MULTILINE)


# --- run


DESK = """
import os
from workers import on

@on("invoice.*", name="books / no".replace(" / no", ""), dev_only=True)
def book(event):
    print("books", event.data["id"], event.once("first", lambda key: "x"), event.once("second", lambda key: 2))
    if event.data.get("fail"):
        raise ValueError("it does not add up")
"""


@pytest.fixture
def desk(mine: Path, server: EmbeddedServer) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    mine.write_text(DESK)
    return lambda *arguments: python_m_app(
        server.url, "run", *arguments, JOBHOOK_HANDLERS="mine", PYTHONPATH=str(mine.parent)
    )


def test_run_runs_a_handler_on_a_file_and_records_nothing(desk: Any, redis: "Redis", tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"id":"evt_1","type":"invoice.paid","data":{"id":"inv_1"}}')
    ended = desk("books", "--file", str(body))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Of this run nothing is recorded" in ended.stdout
    assert "books inv_1 x 2\nStep first: 'x'\nStep second: 2\nIt has finished.\n" in ended.stdout
    assert redis.keys() == []
    body.write_text('{"id":"evt_1","type":"job.made","data":{"id":"inv_1","fail":true}}')
    ended = desk("books", "--file", str(body))
    assert ended.returncode == 1
    assert "In a worker it would not run: it wants invoice.*." in ended.stdout
    assert ended.stderr.endswith("ValueError: it does not add up\n")


def test_run_on_an_event_leaves_it_as_it_is(desk: Any, inbox: Inbox, settings: Settings) -> None:
    """P5: steps that have finished do not run again."""
    id = record(settings)
    token = take(inbox, id).token
    inbox.record_step(id, token, "books / first", b'"before"')
    before = inbox.get(id)
    ended = desk("books", "--event", id[:8])
    assert "Steps that had finished before, and do not run again: first\nbooks inv_1 before 2\n" in ended.stdout
    assert inbox.get(id) == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["books", "--event", "f" * 32], 1, "There is no record of event " + "f" * 32),
        (["nobody", "--event", "f" * 32], 2, "No handler is named nobody. There are: books"),
        (["books", "--file", "/no/file"], 2, "/no/file cannot be read: No such file or directory"),
        (["books"], 2, "give --file or --event"),
    ],
)
def test_run_says_what_is_not_there(desk: Any, redis: "Redis", arguments: list[str], code: int, says: str) -> None:
    ended = desk(*arguments)
    assert ended.returncode == code
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


# --- events


def test_events_that_no_handler_wanted_can_be_listed(run: Run, inbox: Inbox, settings: Settings) -> None:
    wanted, unwanted = record(settings), record(settings, "nobody.wants")
    for id, handlers in ((wanted, 1), (unwanted, 0)):
        taken = take(inbox, id)
        attempt = orjson.dumps({"attempt": 1, "started": 1, "ended": 2, "outcome": "done", "handlers": handlers})
        inbox.work("", Ended(id, taken.token, "done", attempt, unhandled=not handlers), want="")
    record(settings, "nobody.yet")
    assert [event["id"] for event in json_lines(run("events", "--unhandled", "--json").stdout)] == [unwanted]


def test_an_empty_inbox_says_so(run: Run) -> None:
    assert run("events").output == "No events.\n"
    assert json_lines(run("events", "--json").stdout) == []


def test_events_shows_a_line_for_each_event_the_newest_first(run: Run, inbox: Inbox, settings: Settings) -> None:
    first = record(settings, "invoice.paid", "evt_1")
    second = record(settings, "job.created", "evt_2")
    end(inbox, first, "dead")
    heading, *lines = run("events").output.splitlines()
    assert heading.split() == ["id", "received", "type", "resource", "state", "tried", "sent"]
    assert {line.split()[0] for line in lines} == {first, second}
    line = next(line for line in lines if line.startswith(first))
    assert re.search(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d +invoice\.paid +inv_1 +dead +1 +1", line)


def test_events_in_json_are_complete(run: Run, settings: Settings) -> None:
    id = record(settings)
    record(settings)
    (shown,) = json_lines(run("events", "--json").stdout)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown.pop("received"))
    expected = {
        "id": id,
        "type": "invoice.paid",
        "resource": "inv_1",
        "state": "queued",
        "attempts": 0,
        "deliveries": 2,
        "conflict_of": None,
        "error": None,
        "unhandled": False,
        "rewritten": 0,
        "steps": {},
        "waiting": {},
        "replayed": [],
        "history": [],
    }
    assert shown | expected == shown
    assert shown["meta"]["client"] == "203.0.113.9"
    assert "body" not in shown


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--state", "done"], {"evt_done"}),
        (["--state", "queued"], {"evt_job", "evt_invoice"}),
        (["--type", "invoice.*"], {"evt_done", "evt_invoice"}),
        (["--type", "JOB.Created"], {"evt_job"}),
        (["--search", "Quarry Road"], {"evt_job"}),
        (["--search", "evt_inv"], {"evt_invoice"}),
        (["--search", "nowhere"], set()),
        (["--since", "1h"], {"evt_done", "evt_job", "evt_invoice"}),
        (["--since", "0s"], set()),
        (["--state", "queued", "--type", "invoice.*"], {"evt_invoice"}),
    ],
)
def test_events_can_be_filtered(
    filters: list[str], found: set[str], run: Run, inbox: Inbox, settings: Settings
) -> None:
    end(inbox, record(settings, "invoice.paid", "evt_done"))
    record(settings, "invoice.paid", "evt_invoice")
    record(settings, "job.created", "evt_job", street="12 Quarry Road")
    shown = json_lines(run("events", "--json", *filters).stdout)
    assert {inbox.get(entry["id"]).meta["event_id"] for entry in shown} == found


def test_events_by_the_first_digits_of_the_id(run: Run, settings: Settings) -> None:
    id = record(settings)
    assert [entry["id"] for entry in json_lines(run("events", "--json", "--search", id[:8]).stdout)] == [id]


def test_events_has_a_limit(run: Run, settings: Settings) -> None:
    for n in range(3):
        record(settings, event_id=f"evt_{n}")
    assert len(json_lines(run("events", "--json", "--limit", "2").stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["events", "--state", "finished"], "'finished' is none of queued, running, retrying, done, dead"),
        (["events", "--since", "yesterday"], "write a duration such as"),
        (["export", "--until", "2026-11-25T09:00:00"], "has no time zone"),
        (["stats", "--since", "1h", "--until", "2h"], "is not after since"),
        (["replay", "abc", "--type", "invoice.*"], "not with ids"),
        (["events", "--limit", "0"], "--limit"),
        (["replay"], "give ids, or --dead"),
        (["replay", "abc", "--dead"], "give ids, or --dead"),
        (["replay", "abc", "--since", "1h"], "goes with --dead"),
        (["replay", "--dead", "--since", "soon"], "write a duration such as"),
        (["send", "--repeat", "0"], "--repeat"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_a_wrong_call_is_explained(arguments: list[str], complaint: str, run: Run) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in re.sub(r"[\s│]+", " ", result.stderr)


def test_on_a_narrow_terminal_a_line_fits(server: EmbeddedServer, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    shown = python_m_app(server.url, "events", FORCE_COLOR="1", COLUMNS="80").stdout
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert lines[1].split()[0] == id[:12]
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) == 2


@pytest.mark.parametrize("columns", [80, 140])
def test_the_errors_first_line_is_in_the_list_as_far_as_there_is_room(
    server: EmbeddedServer, run: Run, inbox: Inbox, settings: Settings, columns: int
) -> None:
    id = record(settings)
    message = "no [bold]contact[/] of that id is known " + "far and wide " * 20 + "\nsecond line"
    end(inbox, id, "dead", {"handler": "h", "type": "builtins.ValueError", "message": message, "traceback": "t"})
    shown = python_m_app(server.url, "events", FORCE_COLOR="1", COLUMNS=str(columns)).stdout
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert len(lines) == 2
    assert all(len(line) <= columns for line in lines)
    assert lines[1].endswith("…")
    assert re.search(r" dead +ValueError: n", lines[1]) if columns == 80 else id in lines[1]
    piped = run("events").output
    assert "ValueError: no [bold]contact[/] of that id is known far and wide" in piped
    assert "second line" not in piped


def test_the_filter_is_the_same_for_every_command(run: Run, inbox: Inbox, settings: Settings) -> None:
    words = [
        "state",
        "type",
        "resource",
        "handler",
        "error",
        "key",
        "conflict",
        "unhandled",
        "since",
        "until",
        "search",
    ]
    for command in ("events", "replay", "export", "stats", "discard", "erase"):
        shown = run(command, "--help", env={"COLUMNS": "200"}).output
        assert [word for word in words if f"--{word}" not in shown] == []


def test_one_customers_failures_are_found_and_exported(run: Run, inbox: Inbox, settings: Settings) -> None:
    ids = [record(settings, "invoice.paid", f"evt_{n}", street=f"Street {n}") for n in range(3)]
    error = {"handler": "ledger", "type": "app.Gone", "message": "gone", "traceback": "t"}
    end(inbox, ids[1], "dead", error)
    words: tuple[str, ...] = (
        "--state",
        "dead,retrying",
        "--type",
        "invoice.*",
        "--resource",
        "invoice/inv_1",
        "--error",
        "Gone",
    )
    words += ("--handler", "ledger", "--since", "2d", "--until", "2126-11-25T09:00:00+02:00")
    (shown,) = json_lines(run("events", "--json", *words).stdout)
    assert (shown["id"], shown["error"]) == (ids[1], "app.Gone: gone")
    (exported,) = json_lines(run("export", *words).stdout)
    assert exported == shown | {"body": inbox.get(ids[1]).body.decode()}
    assert json_lines(run("export", "--no-bodies", *words).stdout) == [shown]
    assert len(json_lines(run("export").stdout)) == 3
    assert len(json_lines(run("export", "--limit", "2").stdout)) == 2


def test_a_body_that_is_no_text_is_exported_as_it_came(run: Run, settings: Settings) -> None:
    record_bytes(settings, b"\xff\x00")
    (exported,) = json_lines(run("export").stdout)
    assert base64.b64decode(exported["body_base64"]) == b"\xff\x00"


def test_a_search_that_has_not_looked_at_all_does_not_say_none(run: Run, settings: Settings) -> None:
    """P9."""
    for n in range(3):
        record(settings, event_id=f"evt_{n}")
    looked = run("events", "--search", "nowhere", "--look", "2")
    assert "No events" not in looked.stdout
    assert re.search(r"Looked at 2 events, back to \S+ \S+; there are more", looked.stderr)
    assert run("events", "--search", "nowhere").stdout == "No events that fit.\n"
    assert "Looked at 2 events" in run("events", "--search", "nowhere", "--look", "2", "--json").stderr


def test_stats_says_that_there_are_too_many_types(run: Run, inbox: Inbox, settings: Settings) -> None:
    record(settings)
    assert "more types" not in run("stats").stderr
    inbox.redis.zadd("jobhook:of:type:", {record(settings, event_id="evt_2"): 1})
    assert "There are more types than have a set of their own" in run("stats").stderr


def test_stats_counts_by_state_type_and_error(run: Run, inbox: Inbox, settings: Settings) -> None:
    error = {"handler": "ledger", "type": "app.Gone", "message": "gone", "traceback": "t"}
    ends: list[tuple[str, Outcome | None]] = [("a.b", "done"), ("a.b", "dead"), ("a.c", "dead"), ("a.c", None)]
    for n, (type, outcome) in enumerate(ends):
        id = record(settings, type, f"evt_{n}")
        if outcome:
            end(inbox, id, outcome, error if outcome == "dead" else None)
    for words, events in (((), 4), (("--state", "dead"), 2), (("--search", "evt_1"), 1), (("--until", "1h"), 0)):
        counted = json.loads(run("stats", "--json", *words).stdout)
        assert counted["events"] == sum(counted["states"].values()) == sum(counted["types"].values()) == events
    counted = json.loads(run("stats", "--json").stdout)
    assert counted["states"] == {"queued": 1, "running": 0, "retrying": 0, "done": 1, "dead": 2}
    assert counted["types"] == {"a.b": 2, "a.c": 2}
    assert counted["errors"] == {"app.Gone": 2}
    assert counted["oldest_open_seconds"] > 0
    shown = run("stats").output
    assert re.search(r"4 events received since \S+ \S+[+-]\d\d:\d\d \(since=24h\)", shown)
    assert re.search(r"app\.Gone +2", shown)


# --- event


def test_event_shows_a_life_with_a_failure_and_its_traceback(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    error = {
        "type": "builtins.ValueError",
        "message": "no [bold]contact[/] \x1b[2J:smile:",
        "traceback": "Traceback:\n  File x, line 1",
    }
    end(inbox, id, "retry", error)
    inbox.replay([id])
    end(inbox, id, "done")
    lines = run("event", id).output.splitlines()
    assert lines[0] == f"{id}  invoice.paid  done"
    assert "  event id evt_1" in lines
    assert "  resource inv_1" in lines
    moments = [line.split()[2] for line in lines if re.match(r"  \d{4}-", line)]
    moments.remove("replayed")  # within the 7 ms that the attempt is said to have taken
    assert moments == ["received", "queued", "handled", "retry", "handled", "done"]
    assert any(line.endswith("on request; it was retrying") for line in lines)
    assert any(line.endswith("attempt 1, by worker-1") for line in lines)
    assert any(line.endswith("after 7 ms") for line in lines)
    assert "      builtins.ValueError: no [bold]contact[/] \\x1b[2J:smile:" in lines
    assert lines.index("        File x, line 1") == lines.index("      Traceback:") + 1


def test_event_shows_all_errors_of_an_attempt_with_their_handlers_and_own_frames(
    run: Run, inbox: Inbox, settings: Settings
) -> None:
    registry = Registry()

    @registry.on("*", name="first")
    def first(_: Event) -> None:
        json.loads("{")

    @registry.on("*", name="second")
    def second(_: Event) -> None:
        raise ValueError("of the second")

    id = record(settings)
    ended = Processor(inbox, registry).process(take(inbox, id))
    assert ended
    inbox.work("", ended, want="")
    shown = run("event", id).output
    assert re.search(r"JSONDecodeError: .* in handler first\n", shown)
    assert "      builtins.ValueError: of the second in handler second\n" in shown
    assert shown.count("Traceback (most recent call last)") == 0
    assert shown.count(f'File "{__file__}"') == 2
    assert "json/decoder.py" not in shown
    assert f"event {id[:12]} --traceback" in shown
    whole = run("event", id, "--traceback").output
    assert whole.count("Traceback (most recent call last)") == 2
    assert "json/decoder.py" in whole


def test_event_says_what_it_waits_for(run: Run, inbox: Inbox, settings: Settings) -> None:
    id, other = record(settings, event_id="evt_1"), record(settings, event_id="evt_2")
    assert "waits for workers: none are running" in run("event", other).output
    inbox.beat("here:1")
    assert "  waits for a worker; events before it: 1\n" in run("event", other).output
    for waiting in (id, other):
        taken = take(inbox, waiting)
        assert taken.resource
        inbox.take_turn(waiting, taken.token, taken.resource)
    assert f"  waits for its turn: event {id} of invoice/inv_1 is before it\n" in run("event", other).output
    inbox.redis.set("rq:suspended", 1)
    third = record(settings, event_id="evt_3")
    assert "  not worked on: `rq suspend` is on\n" in run("event", third).output


def test_event_shows_in_which_handler_it_is_and_not_in_which_it_was(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    token = take(inbox, id).token
    inbox.note_handler(id, token, "mine.book")
    assert re.search(r"running +attempt 1, by worker-1, in handler mine\.book$", run("event", id).output, re.MULTILINE)
    inbox.release("worker-1", "It died.")
    inbox.note_handler(id, token, "too late")
    inbox.replay([id])
    take(inbox, id)
    assert re.search(r"running +attempt 1, by worker-1$", run("event", id).output, re.MULTILINE)


def test_event_tells_when_the_next_attempt_is_due(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    end(inbox, id, "retry")
    assert re.search(r"due +attempt 2$", run("event", id).output, re.MULTILINE)
    shown = json.loads(run("event", id, "--json").stdout)
    assert shown["next_attempt"] > shown["history"][0]["ended"]


def test_event_shows_who_is_at_it(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    take(inbox, id)
    assert re.search(r"running +attempt 1, by worker-1$", run("event", id).output, re.MULTILINE)


def test_event_shows_redeliveries(run: Run, inbox: Inbox, settings: Settings) -> None:
    """P4."""
    id = record(settings)
    record(settings)
    assert re.search(r"redelivered +once$", run("event", id).output, re.MULTILINE)
    record(settings)
    assert re.search(r"redelivered +2 times; this was the last$", run("event", id).output, re.MULTILINE)


def test_event_shows_a_conflict(run: Run, settings: Settings) -> None:
    """P4."""
    id = record(settings)
    other = record(settings, amount="changed")
    assert other != id
    assert f"conflict: the same event id as {id}, other bytes, and they say" in run("event", other).output


def test_event_says_when_a_redelivery_had_other_bytes(run: Run, settings: Settings) -> None:
    """P4."""
    body = b'{"id":"evt_1","type":"invoice.paid","data":{"id":"inv_1"}}'
    again = body.replace(b":", b": ")
    id = record_bytes(settings, body, again, again)
    assert re.search(
        rf"2 times; this was the last; 2 with other bytes, the last of them {len(again)} bytes long$",
        run("event", id).output,
        re.MULTILINE,
    )
    assert again.decode() not in run("event", id).output
    assert f"body\n{body.decode()}\n\nbody of a redelivery\n{again.decode()}\n" in run("event", id, "--body").output
    shown = json.loads(run("event", id, "--json").stdout)
    assert (shown["rewritten"], shown["rewritten_bytes"]) == (2, len(again))
    assert json.loads(run("event", id, "--json", "--body").stdout)["body_of_a_redelivery"] == again.decode()


def test_event_says_when_the_other_bytes_are_not_kept(run: Run, settings: Settings) -> None:
    id = record_bytes(settings, b'{"n":1}', b'{"n":1}' + b" " * 20_000)
    assert "body of a redelivery\nIt is too long to be kept." in run("event", id, "--body").output
    assert json.loads(run("event", id, "--json", "--body").stdout)["body_of_a_redelivery"] is None


def test_event_shows_the_steps_that_are_finished_and_how_to_go_on(run: Run, inbox: Inbox, settings: Settings) -> None:
    """P5."""
    id = record(settings)
    token = take(inbox, id).token
    inbox.record_step(id, token, "handler a.b", b"null")
    inbox.work("", Ended(id, token, "dead", b'{"attempt":1,"started":1,"ended":2,"worker":"w","outcome":"dead"}'), "")
    output = run("event", id).output
    assert "  finished: handler a.b\n" in output
    assert output.endswith(f"replay {id[:12]}\n")


def test_event_shows_the_body_in_one_piece(run: Run, settings: Settings) -> None:
    """P8: whatever it is; a terminal obeys none of it."""
    long = b'{"a":":smile:", "b":"[bold]"' + b', "c":1' * 40 + b"}"
    assert run("event", record_bytes(settings, long), "--body").output.endswith(f"body\n{long.decode()}\n")
    strange = record_bytes(settings, b"\xff\x1b[2J\nnext")
    assert run("event", strange, "--body").output.endswith("body\n�\\x1b[2J\nnext\n")
    assert json.loads(run("event", strange, "--body", "--json").stdout)["body"] == "�\x1b[2J\nnext"


def test_event_in_json_is_complete(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    end(inbox, id, "done")
    shown = json.loads(run("event", id, "--json").stdout)
    assert shown["id"] == id
    assert shown["meta"]["client"] == "203.0.113.9"
    assert [(entry["attempt"], entry["outcome"]) for entry in shown["history"]] == [(1, "done")]
    assert shown["history"][0]["started"].endswith("Z")
    assert shown["next_attempt"] is None
    assert "body" not in shown


def test_an_event_is_found_by_its_first_digits(run: Run, settings: Settings) -> None:
    ids = [record(settings, event_id=f"evt_{n}") for n in range(17)]  # two of them begin alike
    assert run("event", ids[0][:10]).output.startswith(ids[0])
    first_digits = [id[0] for id in ids]
    ambiguous = next(digit for digit in first_digits if first_digits.count(digit) > 1)
    error = run("event", ambiguous).exception
    assert isinstance(error, EventNotFound)
    assert f"{first_digits.count(ambiguous)} events begin with {ambiguous!r}" in str(error)


@pytest.mark.parametrize("command", ["event", "replay"])
@pytest.mark.parametrize("id", ["0" * 32, "abc"])
def test_an_unknown_event_is_an_error_in_one_line(
    command: str, id: str, run: Run, call_main: Callable[..., tuple[Any, str]]
) -> None:
    code, said = call_main(command, id)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert id in said


# --- replay


def test_replay_puts_dead_and_done_events_back_to_work(run: Run, inbox: Inbox, settings: Settings) -> None:
    """P2, P5: a dead one goes on where it stopped; a done one starts anew."""
    dead, done = record(settings, event_id="evt_1"), record(settings, event_id="evt_2")
    for id, outcome in ((dead, "dead"), (done, "done")):
        token = take(inbox, id).token
        inbox.record_step(id, token, "handler a.b", b"null")
        attempt = orjson.dumps({"attempt": 1, "started": 1, "ended": 2, "worker": "w", "outcome": outcome})
        inbox.work("", Ended(id, token, "dead" if outcome == "dead" else "done", attempt), want="")
    result = run("replay", dead, done[:10])
    assert result.exit_code == 0
    assert result.output.splitlines() == [f"{dead} was dead, is queued", f"{done} was done, is queued"]
    assert [inbox.get(id).state for id in (dead, done)] == ["queued", "queued"]
    assert [len(inbox.get(id).steps) for id in (dead, done)] == [1, 0]


def test_replay_leaves_a_queued_event_alone(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    result = run("replay", id)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"{id} is queued anyway: left alone\n"
    shown = json.loads(run("replay", id, "--json").stdout)
    assert shown == [{"id": id, "was": "queued", "replayed": False}]
    assert inbox.redis.llen("rq:queue:jobhook") == 1


def test_replay_of_all_dead_events(run: Run, inbox: Inbox, settings: Settings) -> None:
    dead = {record(settings, event_id=f"evt_{n}") for n in range(3)}
    for id in dead:
        end(inbox, id, "dead")
    end(inbox, record(settings, event_id="evt_done"), "done")
    assert run("replay", "--dead", "--since", "0s").output == "Nothing to replay.\n"
    shown = json.loads(run("replay", "--dead", "--since", "1h", "--json").stdout)
    assert {entry["id"] for entry in shown if entry["was"] == "dead" and entry["replayed"]} == dead
    assert run("replay", "--dead").output == "Nothing to replay.\n"
    assert inbox.stats().states == {"queued": 3, "running": 0, "retrying": 0, "done": 1, "dead": 0}


def test_replay_of_more_dead_events_than_one_batch(run: Run, inbox: Inbox, settings: Settings) -> None:
    number = BATCH + 1
    record_bytes(settings, *(b"%d" % n for n in range(number)))
    while taken := inbox.work("w").taken:
        inbox.work("", Ended(taken.id, taken.token, "dead", b"{}"), want="")
    inbox.redis.delete("rq:queue:jobhook")
    assert len(json.loads(run("replay", "--dead", "--json").stdout)) == number
    assert inbox.stats().states["queued"] == number


def test_replay_says_what_was_replayed_before_what_is_missing(run: Run, inbox: Inbox, settings: Settings) -> None:
    id = record(settings)
    end(inbox, id, "dead")
    result = run("replay", id, "0" * 32)
    assert isinstance(result.exception, EventNotFound)
    assert result.output == f"{id} was dead, is queued\n"


# --- doctor


def test_doctor_finds_nothing_on_a_good_server(run: Run, inbox: Inbox) -> None:
    inbox.redis.set("jobhook:swept", int((time.time() + 60) * 1000))  # so that it is not long ago, however busy we are
    result = run("doctor")
    assert result.exit_code == 0
    levels = [line.split()[:2] for line in result.output.splitlines()]
    assert levels == [
        ["ok", name]
        for name in ("settings", "redis", "version", "durability", "eviction", "memory", "clock", "workers")
    ]


def test_doctor_warns_when_there_are_no_workers(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0
    (warning,) = [finding for finding in json.loads(result.stdout) if finding["level"] != "ok"]
    assert warning == {
        "check": "workers",
        "level": "warn",
        "finding": "last seen never: events are recorded but not processed",
        "remedy": "run `jobhook work`",
    }
    assert "run `jobhook work`" in run("doctor").output


def test_doctor_warns_of_plain_http_and_of_keys_left_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_REQUIRE_HTTPS", "false")
    monkeypatch.setenv("JOBSITEON_PREVIOUS_API_KEYS", "an-older-key-of-the-tests")
    shown = {finding["check"]: finding["level"] for finding in json.loads(run("doctor", "--json").stdout)}
    assert (shown["https"], shown["keys"]) == ("warn", "warn")


def test_doctor_names_what_is_ignored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10."""
    monkeypatch.setenv("JOBHOOK_PORT", "tcp://10.0.0.7:80")
    result = run("doctor", "--json")
    assert result.exit_code == 0
    (warning,) = [f for f in json.loads(result.stdout) if f["check"] == "settings" and f["level"] == "warn"]
    assert "JOBHOOK_PORT" in warning["finding"]
    assert "enableServiceLinks: false" in warning["finding"]


def test_doctor_names_a_certificate_that_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10."""
    monkeypatch.setenv("REDIS_URL", "rediss://127.0.0.1:1/0?ssl_ca_certs=/no.pem")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert [f["finding"] for f in json.loads(result.stdout)] == ["REDIS_URL: ssl_ca_certs names no file that is there"]


def test_doctor_fails_when_redis_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    result = run("doctor")
    assert result.exit_code == 1
    assert re.search(
        r"fail +redis +does not answer \(ConnectionError\)\n +start Redis, or set REDIS_URL", result.output
    )


@pytest.mark.parametrize(
    ("variables", "finding"),
    [
        ({"JOBHOOK_FORWARD_URLS": "*=https://erp.example/hooks"}, "JOBHOOK_FORWARD_SECRET: is not set, but"),
        ({"JOBHOOK_FORWARD_URLS": "*=ftp://erp.example"}, "JOBHOOK_FORWARD_URLS: pair 1: the URL must begin with"),
        ({"JOBHOOK_HANDLERS": "no_such_module"}, "JOBHOOK_HANDLERS: no_such_module cannot be imported"),
        ({"JOBHOOK_HANDLERS": "handlers_that_exit"}, "JOBHOOK_HANDLERS: handlers_that_exit cannot be imported"),
        ({"JOBHOOK_HANDLERS": "handlers_that_die"}, "importing them ends the process (exit code 7)"),
    ],
    ids=["no secret", "no URL", "no module", "exits", "dies"],
)
def test_doctor_finds_what_work_would_refuse(
    variables: dict[str, str], finding: str, redis: "Redis", server: EmbeddedServer, tmp_path: Path
) -> None:
    """P9."""
    (tmp_path / "handlers_that_exit.py").write_text("import sys\nprint('noise')\nsys.exit()\n")
    (tmp_path / "handlers_that_die.py").write_text("import os\nprint('noise', flush=True)\nos._exit(7)\n")
    more = variables | {"PYTHONPATH": str(tmp_path)}
    ended = python_m_app(server.url, "doctor", "--json", **more)
    assert ended.returncode == 1
    (failure,) = [found for found in json.loads(ended.stdout) if found["level"] == "fail"]
    assert failure["check"] == "handlers"
    assert failure["finding"].startswith(finding)
    if "dies" not in finding and "process" not in finding:
        refused = python_m_app(server.url, "work", **more)
        assert refused.returncode == 2
        assert finding in refused.stderr


def test_doctor_says_how_long_it_waits_for_handlers(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "handlers_that_hang.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("JOBHOOK_HANDLERS", "handlers_that_hang")
    monkeypatch.setattr("app.cli.doctor.IMPORT_SECONDS", 1.0)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert "not imported within 1 s" in {finding["finding"] for finding in json.loads(result.stdout)}


def test_doctor_names_every_setting_that_is_missing_or_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBSITEON_API_KEY")
    monkeypatch.setenv("JOBHOOK_PORT", "many")
    result = run("doctor", "--json")
    assert result.exit_code == 1
    findings = [finding["finding"] for finding in json.loads(result.stdout)]
    assert [finding.split(":")[0] for finding in findings] == ["JOBSITEON_API_KEY", "JOBHOOK_PORT"]


# --- settings


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--markdown"], ["doctor"], ["events"]])
@pytest.mark.parametrize(
    "redis_url",
    [
        "redis://user:hush-hush@127.0.0.1:1/0",
        "redis://:hush@hush@127.0.0.1:1/0",
        "unix:///no/socket?password=hush-hush",
    ],
)
def test_no_secret_is_ever_shown(
    arguments: list[str], redis_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("JOBSITEON_PREVIOUS_API_KEYS", "an-older-key-of-the-tests")
    result = run(*arguments)
    shown = result.output + str(result.exception)
    assert not {secret for secret in ("hush", KEY, "an-older-key-of-the-tests") if secret in shown}


def test_settings_shows_every_variable_with_its_value(run: Run) -> None:
    shown = {line.split()[0]: line for line in run("settings").output.splitlines()[1:]}
    assert "**********" in shown["JOBSITEON_API_KEY"]
    assert HANDLERS in shown["JOBHOOK_HANDLERS"]
    assert "1MiB" in shown["JOBHOOK_MAX_BODY_BYTES"]
    assert len(shown) == len(Settings.model_fields)


def test_settings_as_the_tables_of_the_documentation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the defaults: it is the same wherever it is made."""
    monkeypatch.delenv("JOBSITEON_API_KEY")
    assert run("settings", "--markdown").output == settings_table() + "\n"


# --- the whole


def test_the_version() -> None:
    assert invoke("--version").output == f"{__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: jobhook {command}" in result.output


def test_the_help_names_every_command() -> None:
    output = invoke("--help").output
    assert [command for command in COMMANDS if f"│ {command} " not in output] == []


@pytest.mark.parametrize(
    ("arguments", "redis_url", "more", "code", "said"),
    [
        (["serve"], "http://wrong", {}, 2, "REDIS_URL: must begin with redis://"),
        (["events"], "redis://127.0.0.1:1/0", {"JOBHOOK_PROT": "1"}, 2, "JOBHOOK_PROT: no such setting. Did you mean"),
        (["work"], "redis://h", {"JOBHOOK_ENV_FILE": "/no.env"}, 2, "JOBHOOK_ENV_FILE: /no.env: there is no such file"),
        (["serve"], "redis://h", {"JOBHOOK_ENV_FILE": "."}, 2, "JOBHOOK_ENV_FILE: .: is a folder, not a file"),
        (
            ["serve"],
            "redis://h",
            {"JOBHOOK_SECRETS_DIR": "/no"},
            2,
            "JOBHOOK_SECRETS_DIR: /no: there is no such folder",
        ),
        (["work"], "redis://h", {"RQ_KEY_PREFIX": "my rq"}, 2, "RQ_KEY_PREFIX: only letters, digits"),
        (["serve"], "redis://h?ssl=true", {}, 2, "REDIS_URL: has an option that is not known here"),
        (["work"], "rediss://h?ssl_ca_certs=/no.pem", {}, 2, "REDIS_URL: ssl_ca_certs names no file that is there"),
        (
            ["events"],
            "redis://127.0.0.1:1/0",
            {},
            1,
            "Redis cannot be used (ConnectionError). See: python -m app doctor",
        ),
    ],
)
def test_exit_codes_and_one_clear_line(
    arguments: list[str], redis_url: str, more: dict[str, str], code: int, said: str
) -> None:
    ended = python_m_app(redis_url, *arguments, **more)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.returncode == code
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("options", [["--body"], ["--body", "--json"]])
def test_where_ascii_only_can_be_shown_the_rest_is_escaped(
    options: list[str], redis: "Redis", server: EmbeddedServer, settings: Settings
) -> None:
    id = record(settings, street="Straße \U0001f600")
    shown = python_m_app(server.url, "event", id, *options, PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.isascii()
    if "--json" in options:
        assert "Straße \U0001f600" in json.loads(shown.stdout)["body"]
    else:
        assert r"Stra\xdfe \U0001f600" in shown.stdout


@pytest.mark.parametrize("command", ["events", "doctor", "settings", "--help"])
def test_every_command_can_speak_ascii(command: str, redis: "Redis", server: EmbeddedServer) -> None:
    shown = python_m_app(server.url, command, PYTHONIOENCODING="ascii")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.isascii()


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["settings"], ["doctor", "--json"], ["--help"], ["--version"]])
def test_where_nothing_can_be_written_one_line_says_so(arguments: list[str], unbuffered: str, redis: "Redis") -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=ROOT,
            env=os.environ | environment("redis://127.0.0.1:1/0") | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (ended.returncode, ended.stderr) == (1, "The output cannot be written: No space left on device.\n")


def test_the_workers_alone_tell_what_rq_cannot_use() -> None:
    """P10: RQ itself would, with a traceback."""
    command = [sys.executable, "-m", "workers"]
    variables = os.environ | environment("redis://h") | {"RQ_KEY_PREFIX": "my rq"}
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch("RQ_KEY_PREFIX: only letters, digits .*\n", ended.stderr)


def test_the_instance_that_runs_in_this_folder_is_found(
    redis: "Redis", server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `jobhook dev` has written there, if nothing else is configured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/dev.env").write_text(f"JOBSITEON_API_KEY={KEY}\nREDIS_URL={server.url}\n")
    monkeypatch.setattr(sys, "argv", ["jobhook", "settings"])
    with pytest.raises(SystemExit):
        main()
    assert load_settings().redis_url == server.url


def test_the_instance_in_this_folder_is_not_looked_for_where_settings_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call_main: Callable[..., tuple[Any, str]]
) -> None:
    """P10: which of both is meant, is not certain."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/dev.env").write_text(f"JOBSITEON_API_KEY={KEY}\n")
    (tmp_path / ".env").write_text("JOBSITEON_API_KEY: canary\n")
    assert call_main("events") == (2, ".env, line 1: write NAME=value, with a = instead of the colon\n")
    assert call_main("--version")[0] == 0


@pytest.mark.parametrize("configured", ["JOBSITEON_API_KEY", "REDIS_URL"])
def test_what_is_configured_goes_before_the_instance_in_this_folder(
    configured: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_main: Callable[..., tuple[Any, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    monkeypatch.setenv(configured, "redis://127.0.0.1:1/0" if configured == "REDIS_URL" else KEY)
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/dev.env").write_text("JOBHOOK_PROT=1\n")
    assert "JOBHOOK_PROT" not in call_main("events")[1]


# --- send


@pytest.fixture
def receiving(server: EmbeddedServer, make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A receiver, and the environment in which `jobhook send` finds it."""
    stack = make_stack(server.url)
    stack.start_receiver()
    for name, value in (environment(server.url) | {"JOBHOOK_PORT": str(stack.port)}).items():
        monkeypatch.setenv(name, value)
    return stack


def test_send_delivers_samples_and_says_how_to_follow_them(receiving: Stack) -> None:
    for type in ("invoice.paid", "job.created", "something.new"):
        result = invoke("send", type)
        assert result.exit_code == 0
        line, follow = result.output.splitlines()
        found = re.fullmatch(r"200  accepted   ([0-9a-f]{32})  \d+\.\d ms", line)
        assert found
        assert receiving.inbox.get(found[1]).type == type
        assert follow.startswith("Follow it: ")
        assert follow.endswith(f" event {found[1][:12]}")
    assert receiving.inbox.stats().states["queued"] == 3


def test_send_repeats_the_same_bytes(receiving: Stack) -> None:
    """P4."""
    lines = invoke("send", "--repeat", "3").output.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["accepted", "duplicate", "duplicate"]
    assert len({line.split()[2] for line in lines[:3]}) == 1
    assert len(lines) == 4


def test_send_in_json(receiving: Stack) -> None:
    first, second = json.loads(invoke("send", "--repeat", "2", "--json").stdout)
    assert (first["status"], first["answer"]["status"], second["answer"]["status"]) == (200, "accepted", "duplicate")
    assert first["ms"] > 0


def test_send_delivers_a_file_as_it_is(receiving: Stack, tmp_path: Path) -> None:
    """P8."""
    (tmp_path / "body").write_bytes(b"not JSON\x00\xff")
    id = json.loads(invoke("send", "--file", str(tmp_path / "body"), "--json").stdout)[0]["answer"]["id"]
    assert receiving.inbox.get(id).body == b"not JSON\x00\xff"


def test_send_shows_a_refusal_and_fails(receiving: Stack) -> None:
    """P3."""
    result = invoke("send", "--bad-signature")
    assert result.exit_code == 1
    assert re.fullmatch(r"401  The request is not signed with a key known here\.  \d+\.\d ms\n", result.output)
    elsewhere = invoke("send", "--url", receiving.url + "/elsewhere")
    assert elsewhere.exit_code == 1
    assert elsewhere.output.startswith("404  There is nothing here.")
    assert receiving.inbox.stats().states["queued"] == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/webhooks/jobsiteon", "no-url", "http://[oops"])
def test_send_to_nobody_says_so(url: str, run: Run) -> None:
    result = run("send", "--url", url)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{url} does not answer (")
    assert result.stderr.endswith("Is `jobhook serve` or `jobhook dev` running?\n")


def test_send_of_a_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("send", "--file", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert result.stderr.endswith("none: No such file or directory\n")


# --- work


def test_work_runs_as_many_workers_as_it_is_told(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    id = record(stack.settings, "test.ok")
    process = stack.start("work", "app", "work", "--workers", "1")
    stack.wait_for(id, "done")
    assert stack.effects(id) == ["ok 1"]
    assert b"workers" in Path(f"/proc/{process.pid}/cmdline").read_bytes()  # the same process: signals reach it
    assert stack.log_lines("supervisor started", at_least=1)[0]["workers"] == 1
    process.terminate()
    assert process.wait(30) == 0


# --- openapi


def test_openapi_prints_the_document_of_what_is_configured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBHOOK_SIGNATURE_HEADER", "X-Acme-Signature")
    result = run("openapi")
    document = json.loads(result.stdout)
    assert document["info"]["version"] == __version__
    (parameter,) = document["paths"][PATH]["post"]["parameters"]
    assert parameter["name"] == "X-Acme-Signature"
    assert result.stderr == ""


def test_openapi_needs_nothing_configured_but_says_so() -> None:
    """P10."""
    result = invoke("openapi")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)["paths"]) == {PATH, "/healthz", "/readyz", "/metrics"}
    assert "default settings, because:\nJOBSITEON_API_KEY" in result.stderr


# --- what cannot be read


def test_a_record_that_cannot_be_read_is_left_out_and_said(run: Run, inbox: Inbox, settings: Settings) -> None:
    """P2, P9: until then, no listing dies of it."""
    broken, other = record(settings, event_id="evt_1"), record(settings, event_id="evt_2")
    inbox.redis.hdel(f"jobhook:event:{broken}", "received", "body")
    assert [event["id"] for event in json_lines(run("events", "--json").stdout)] == [other]
    inbox.sweep()
    listed = run("events")
    assert listed.exit_code == 0
    assert other in listed.stdout
    assert broken not in listed.stdout
    assert listed.stderr.startswith("Without 1 record that cannot be read. See: ")
    said = run("event", broken[:8])
    assert said.exit_code == 1
    assert f"The record of event {broken} cannot be read: no field 'received'." in str(said.exception)
    checks = {check["check"]: check for check in json.loads(run("doctor", "--json").stdout)}
    assert checks["records"]["level"] == "warn"
    assert broken in checks["records"]["finding"]
