"""`jobhook pause` and `resume`, with everything running."""

import httpx
import orjson

from tests.support.stack import Stack


def ready(stack: Stack) -> list[str]:
    answer = httpx.get(f"http://127.0.0.1:{stack.port}/readyz", timeout=10)
    assert answer.status_code == 200
    return [problem["finding"] for problem in answer.json()["problems"] if problem["check"] == "paused"]


def test_all_work_is_paused_for_an_hour_and_then_resumed(stack: Stack) -> None:
    """P1: receiving goes on."""
    assert stack.jobhook("pause", "--for", "1h").stdout.startswith("Paused everything, until 2")
    id = stack.deliver_event("test.ok", "evt_1")
    (finding,) = ready(stack)
    assert finding.startswith("everything since ")
    assert "jobhook_pauses 1.0" in httpx.get(f"http://127.0.0.1:{stack.port}/metrics").text
    shown = orjson.loads(stack.jobhook("event", id, "--json").stdout)
    assert shown["state"] == "queued"
    assert shown["kept_waiting"].startswith("everything is paused by ")
    assert "not worked on: everything is paused by " in stack.jobhook("event", id).stdout
    assert stack.jobhook("resume").stdout == "Resumed everything.\n"
    stack.wait_for(id, "done")
    assert ready(stack) == []


def test_events_of_a_type_are_paused_and_go_on_at_once_when_resumed(stack: Stack) -> None:
    told = stack.jobhook("pause", "test.ok*").stdout
    assert told == "Paused events of type test.ok*, until `jobhook resume 'test.ok*'`.\n"
    waiting, other = stack.deliver_event("test.ok", "evt_1"), stack.deliver_event("test.async", "evt_2")
    stack.wait_for(other, "done")
    assert stack.wait_for(waiting, "retrying").attempts == ()
    assert "attempts used: 0: paused: test.ok*" in stack.jobhook("event", waiting).stdout
    refused = stack.jobhook("resume", "test.other")
    assert (refused.returncode, refused.stdout) == (1, "test.other is not paused. Paused is: test.ok*.\n")
    assert stack.jobhook("resume", "test.ok*").stdout == "Resumed events of type test.ok*: 1 event goes on.\n"
    assert len(stack.wait_for(waiting, "done").attempts) == 1
    assert stack.jobhook("resume").stdout == "Nothing is paused.\n"


def test_a_handler_is_paused_by_its_name(stack: Stack) -> None:
    name = "tests.support.handlers.succeed"
    assert stack.jobhook("pause", name).stdout.startswith(f"Paused the handler {name}, until ")
    id = stack.deliver_event("test.ok", "evt_1")
    assert stack.wait_for(id, "retrying").unfinished.keys() == {name}
    assert stack.jobhook("pause", "").returncode == 2
    assert stack.jobhook("pause", name, "--for", "7").returncode == 2
