"""A person's day with Jobhook: by commands alone, on everything running (receiver, workers, a ledger that fails)."""

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import json_lines, wait_until
from tests.support.sink import Sink, sink
from tests.support.stack import ROOT, MakeStack, Stack

CUSTOMER, NAME = "con_7001", "Philippa Canary-Brown"
HANDLERS = """
    from pathlib import Path

    from workers import Event, Permanent, on

    CLOSED = Path({closed!r})


    @on("invoice.*", name="ledger")
    def book(event: Event) -> None:
        if CLOSED.exists():
            raise Permanent(f"closed for {{event.data['customer']}}")
"""


@pytest.fixture
def told() -> Iterator[Sink]:
    with sink() as made:
        yield made


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """While it is there, the ledger takes nothing."""
    return tmp_path / "closed"


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path, told: Sink, closed: Path) -> Stack:
    (tmp_path / "ledger_of_the_day.py").write_text(textwrap.dedent(HANDLERS.format(closed=str(closed))))
    stack = make_stack(
        server.url,
        JOBHOOK_HANDLERS="ledger_of_the_day",
        PYTHONPATH=f"{tmp_path}:{ROOT}",
        JOBHOOK_ALERT_URLS=told.url(),
    )
    stack.start_receiver()
    stack.start_workers(2)
    return stack


@pytest.fixture
def jobhook(stack: Stack) -> Callable[..., str]:
    """Runs a command that has to succeed, and gives what it prints."""

    def run(*arguments: str) -> str:
        done = stack.jobhook(*arguments, given="")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def invoice(stack: Stack, number: int, customer: str, name: str) -> str:
    answer = stack.deliver(
        {
            "id": f"evt_{number}",
            "type": "invoice.paid",
            "data": {"id": f"inv_{number}", "contact_id": customer, "customer": name, "total": "120.00"},
        }
    )
    assert answer.status_code == 200
    return str(answer.json()["id"])


def test_a_persons_day(stack: Stack, jobhook: Callable[..., str], told: Sink, closed: Path) -> None:
    """P2, P5, P7: find one customer's failures, say why, replay only those, export, pause, be told, erase."""
    closed.touch()
    hers = [invoice(stack, number, CUSTOMER, NAME) for number in (1, 2)]
    others = [invoice(stack, number, "con_1", "Somebody Else") for number in (3, 4, 5)]
    for id in (*hers, *others):
        stack.wait_for(id, "dead")

    # told when something dies, once for all five
    wait_until(lambda: told.taken, "the alert", 60)
    assert "events have died in the handler ledger" in told.taken[0]["message"]
    assert NAME not in str(told.taken)

    # yesterday's failed invoice events of one customer, and why
    chosen = ("--state", "dead", "--type", "invoice.*", "--since", "1d", "--search", CUSTOMER)
    found: list[dict[str, Any]] = json_lines(jobhook("events", *chosen, "--json"))
    assert {event["id"] for event in found} == set(hers)
    assert "Permanent" in jobhook("events", *chosen)
    why = jobhook("event", hers[0])
    assert "closed for" in why
    assert "ledger" in why

    # replay only those
    closed.unlink()
    assert jobhook("replay", *chosen, "--yes") == "2 of 2 put back to work.\n"
    for id in hers:
        stack.wait_for(id, "done")
    assert [stack.inbox.get(id).state for id in others] == ["dead"] * 3

    # export them, with their bodies
    exported = json_lines(jobhook("export", "--search", CUSTOMER))
    assert {event["id"] for event in exported} == set(hers)
    assert all(NAME in str(event) for event in exported)

    # pause the ledger for an hour, see how many wait, go on
    jobhook("pause", "ledger", "--for", "1h")
    waiting = [invoice(stack, number, CUSTOMER, NAME) for number in (6, 7, 8)]
    for id in waiting:
        stack.wait_for(id, "retrying")
    (ledger,) = json.loads(jobhook("handlers", "--json"))["handlers"]
    assert ledger["waiting"] == 3
    assert len(json_lines(jobhook("events", "--state", "retrying", "--json"))) == 3
    jobhook("resume", "ledger")
    for id in waiting:
        assert len(stack.wait_for(id, "done").attempts) == 1, "a pause uses up no attempt"

    # erase one contact everywhere
    assert "5 of 5 erased" in jobhook("erase", "--search", CUSTOMER, "--yes")
    jobhook("erase", "--search", NAME, "--yes")
    assert json_lines(jobhook("events", "--search", CUSTOMER, "--json")) == []
    assert NAME not in jobhook("export")
    for key in stack.redis.scan_iter("jobhook:event:*"):
        record: Any = stack.redis.hgetall(key)
        assert NAME.encode() not in b"".join(record.values())
    assert [stack.inbox.get(id).state for id in others] == ["dead"] * 3

    # and redeliveries of what was erased are known
    again = stack.deliver(
        {
            "id": "evt_1",
            "type": "invoice.paid",
            "data": {"id": "inv_1", "contact_id": CUSTOMER, "customer": NAME, "total": "120.00"},
        }
    )
    assert again.json()["status"] == "duplicate"
    assert [entry["what"] for entry in json_lines(jobhook("audit", "--json"))] == [
        *("erase", "erase", "resume", "pause", "replay")
    ]
