"""The whole of it as real processes: uvicorn, supervisor, workers, Valkey."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.processes import children
from tests.support.stack import MakeStack, Stack


def test_a_delivery_is_answered_recorded_and_processed(stack: Stack) -> None:
    """P1, P5."""
    id = stack.deliver_event("test.ok", "evt_1")
    record = stack.wait_for(id, "done")
    assert stack.effects(id) == ["ok 1"]
    assert record.meta["event_id"] == "evt_1"
    assert [entry["outcome"] for entry in record.attempts] == ["done"]
    assert stack.redis.keys("rq:job:*") == []
    (delivery,) = stack.log_lines("delivery", at_least=1)
    (attempt,) = stack.log_lines("attempt", at_least=1)
    assert delivery["id"] == attempt["id"] == id


def test_the_service_links_of_kubernetes_are_no_obstacle(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P10: both processes start with what a Service named `jobhook` puts into their environment, and say so."""
    links = {"JOBHOOK_SERVICE_HOST": "10.0.0.7", "JOBHOOK_SERVICE_PORT": "80", "JOBHOOK_PORT": "tcp://10.0.0.7:80"}
    stack = make_stack(server.url, **links)
    stack.start_receiver()
    stack.start_workers()
    stack.wait_for(stack.deliver_event("test.ok", "evt_1"), "done")
    notes = [line["note"] for line in stack.log_lines("setting", at_least=2)]
    assert len(notes) == 2
    assert all(name in note for name in links for note in notes)


def test_a_redelivery_is_a_duplicate(stack: Stack) -> None:
    """P4."""
    id = stack.deliver_event("test.ok", "evt_1")
    stack.wait_for(id, "done")
    again = stack.deliver({"id": "evt_1", "type": "test.ok", "data": {"id": "res_1"}}).json()
    assert again == {"status": "duplicate", "id": id}
    assert stack.inbox.get(id).redelivered == 1
    assert stack.effects(id) == ["ok 1"]


def test_a_hundred_copies_at_once_are_one_event(stack: Stack) -> None:
    """P4: also at two receivers."""
    body = {"id": "evt_1", "type": "test.ok", "data": {"id": "res_1"}}
    with Stack(stack.folder, stack.redis_url) as second:
        second.start_receiver()
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: (stack, second)[n % 2].deliver(body).json(), range(100)))
    assert sorted(answer["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 99
    assert len({answer["id"] for answer in answers}) == 1
    stack.wait_for(answers[0]["id"], "done")
    assert stack.effects(answers[0]["id"]) == ["ok 1"]


def test_other_bytes_under_the_same_id_are_a_conflict_that_is_kept(stack: Stack) -> None:
    """P4."""
    id = stack.deliver_event("test.ok", "evt_1")
    other = stack.deliver({"id": "evt_1", "type": "test.ok", "data": {"id": "changed"}}).json()
    assert other["status"] == "conflict"
    assert other["id"] != id
    assert stack.wait_for(other["id"], "done").conflict_of == id
    assert stack.effects(other["id"]) == ["ok 1"]
    again = stack.deliver({"id": "evt_1", "type": "test.ok", "data": {"id": "changed"}}).json()
    assert again == {"status": "duplicate", "id": other["id"]}


VARIANTS = [
    {"data": {"id": "inv_1", "total": "120.00"}, "type": "test.ok", "id": "evt_1"},
    {"id": "evt_1", "type": "test.ok", "data": {"total": "120.00", "id": "inv_1"}, "attempt": 2},
    {"id": "evt_1", "type": "test.ok", "data": {"id": "inv_1", "total": "120.00"}, "sent_at": "2026-03-03T09:10:00Z"},
    {"id": "evt_1", "type": "test.ok", "data": {"id": "inv_1", "total": "120.00"}, "pending_webhooks": 1},
]


def test_five_variants_of_a_paid_invoice_have_one_effect(stack: Stack) -> None:
    """P4, P5: retries as senders write them anew, and the first of them with spaces."""
    bodies = [*map(orjson.dumps, VARIANTS), json.dumps(VARIANTS[0], indent=2).encode()]
    first, *others = [stack.deliver(body).json() for body in bodies]
    stack.wait_for(first["id"], "done")
    assert others == [{"status": "duplicate", "id": first["id"]}] * 4
    assert stack.effects(first["id"]) == ["ok 1"]
    assert stack.inbox.stats().states["done"] == 1
    assert stack.inbox.get(first["id"]).rewritten == 4


def test_where_things_are_and_whether_an_id_is_trusted_can_be_set(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P4, P10."""
    stack = make_stack(
        server.url,
        JOBHOOK_SAME_ID="duplicate",
        JOBHOOK_EVENT_ID_PATH="meta.uid",
        JOBHOOK_TYPE_PATH="meta.what",
        JOBHOOK_TIME_PATH="meta.when",
        JOBHOOK_RESOURCE_PATH="invoice.no",
    )
    stack.start_receiver()
    meta = {"uid": "evt_1", "what": "invoice.paid", "when": "Tue, 03 Mar 2026 09:00:00 GMT"}
    answers = [stack.deliver({"meta": meta, "invoice": {"no": 7}, "total": n}).json() for n in range(2)]
    assert [answer["status"] for answer in answers] == ["accepted", "duplicate"]
    record = stack.inbox.get(answers[0]["id"])
    assert (record.meta["event_id"], record.resource, record.occurred_at) == ("evt_1", "invoice/7", 1772528400.0)


def test_a_failing_event_is_dead_after_its_last_attempt_and_can_be_replayed(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P2."""
    stack = make_stack(server.url, JOBHOOK_MAX_ATTEMPTS="1")
    stack.start_receiver()
    stack.start_workers()
    id = stack.deliver_event("test.fail", "evt_1")
    record = stack.wait_for(id, "dead")
    error = record.attempts[0]["error"]
    assert error["type"] == "builtins.ValueError"
    assert "raise ValueError" in error["traceback"]
    assert stack.inbox.replay([id]) == {id: "dead"}
    wait_until(lambda: len(stack.effects(id)) == 2, "the replay")
    assert stack.wait_for(id, "dead").token == 2


def test_a_redelivery_of_a_dead_event_puts_it_back_to_work(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P4."""
    stack = make_stack(server.url, JOBHOOK_MAX_ATTEMPTS="1")
    stack.start_receiver()
    stack.start_workers()
    id = stack.deliver_event("test.fail", "evt_1")
    stack.wait_for(id, "dead")
    stack.deliver_event("test.fail", "evt_1")
    wait_until(lambda: len(stack.effects(id)) == 2, "the second attempt")
    stack.wait_for(id, "dead")


def test_a_finished_handler_does_not_run_again_when_another_fails(stack: Stack) -> None:
    """P5."""
    id = stack.deliver_event("test.two_flaky", "evt_1")
    stack.wait_for(id, "done")
    assert stack.effects(id) == ["first", "flaky 1", "flaky 2"]


def test_a_worker_killed_in_a_handler_is_replaced_and_the_event_runs_again(stack: Stack) -> None:
    """P2, P5: it may run again because it was cut in the middle."""
    id = stack.deliver_event("test.wait", "evt_1")
    pid = int(wait_until(lambda: stack.effects(id), "the handler")[0].split()[1])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(stack.effects(id)) == 2, "the second attempt")
    stack.redis.rpush(f"go:{id}", "go")
    record = stack.wait_for(id, "done")
    assert [entry["outcome"] for entry in record.attempts] == ["crashed", "done"]
    assert "SIGKILL" in record.attempts[0]["error"]["message"]


def test_a_worker_frozen_past_its_lease_cannot_overwrite(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P5: fencing. Once another worker has begun anew, the first one's late end is not recorded."""
    stack = make_stack(server.url)
    stack.start_receiver()
    stack.start_workers(2)
    id = stack.deliver_event("test.wait", "evt_1")
    wait_until(lambda: stack.effects(id), "the handler")
    stack.redis.zadd("jobhook:running", {id: 0})  # as if the lease had run out
    wait_until(lambda: len(stack.effects(id)) == 2, "the second attempt")
    stack.redis.rpush(f"go:{id}", "go")  # the first to wait is the first to be served
    wait_until(lambda: stack.log_lines("attempt not recorded: its lease was lost"), "the refusal")
    stack.redis.rpush(f"go:{id}", "go")
    record = stack.wait_for(id, "done")
    assert [entry["outcome"] for entry in record.attempts] == ["crashed", "done"]


@pytest.mark.parametrize(
    ("type", "outcome"),
    [("test.hard_exit", "done"), ("test.segfault", "dead"), ("test.exit", "dead")],
)
def test_a_handler_that_ends_its_process_spoils_nothing(
    type: str, outcome: str, server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P2: it is tried again, then dead; the others are not affected."""
    stack = make_stack(server.url, JOBHOOK_MAX_ATTEMPTS="2" if type == "test.hard_exit" else "1")
    stack.start_receiver()
    stack.start_workers()
    id = stack.deliver_event(type, "evt_1")
    other = stack.deliver_event("test.ok", "evt_2")
    stack.wait_for(id, outcome)
    stack.wait_for(other, "done")


@pytest.mark.parametrize("type", ["test.hang", "test.async_hang"])
def test_the_timeout_ends_a_handler_that_catches_every_exception(
    type: str, server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P2."""
    stack = make_stack(server.url, JOBHOOK_HANDLER_TIMEOUT="1s", JOBHOOK_MAX_ATTEMPTS="1")
    stack.start_receiver()
    stack.start_workers()
    id = stack.deliver_event(type, "evt_1")
    other = stack.deliver_event("test.async", "evt_2")
    assert "HandlerTimeout" in stack.wait_for(id, "dead").attempts[0]["error"]["type"]
    stack.wait_for(other, "done")


def test_a_handler_stuck_outside_the_interpreter_is_killed(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2."""
    stack = make_stack(server.url, JOBHOOK_HANDLER_TIMEOUT="1s", JOBHOOK_MAX_ATTEMPTS="1")
    stack.start_receiver()
    stack.start_workers()
    id = stack.deliver_event("test.stuck", "evt_1")
    stack.wait_for(id, "dead")
    assert stack.log_lines("worker killed: it did not end its handler", at_least=1)


def test_sigterm_finishes_the_event_in_hand_and_loses_nothing(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2."""
    stack = make_stack(server.url)
    stack.start_receiver()
    supervisor = stack.start_workers()
    id = stack.deliver_event("test.wait", "evt_1")
    wait_until(lambda: stack.effects(id), "the handler")
    queued = stack.deliver_event("test.ok", "evt_2")
    supervisor.terminate()
    wait_until(lambda: stack.log_lines("supervisor stopping: workers finish what they have in hand"), "the signal")
    stack.redis.rpush(f"go:{id}", "go")
    assert supervisor.wait(20) == 0
    assert stack.inbox.get(id).state == "done"
    assert stack.inbox.get(queued).state == "queued"
    stack.start_workers()
    stack.wait_for(queued, "done")


def test_workers_end_with_a_killed_supervisor_and_the_next_one_carries_on(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P2."""
    stack = make_stack(server.url)
    stack.start_receiver()
    supervisor = stack.start_workers(2)
    orphans = children(supervisor.pid)
    assert len(orphans) == 2
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(_alive(pid) for pid in orphans), "the orphans to end")
    id = stack.deliver_event("test.ok", "evt_1")
    stack.start_workers()
    stack.wait_for(id, "done")


def test_what_was_accepted_survives_a_crash_of_redis(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P1, P2, P6: refused honestly while it is down, everything accepted is processed afterwards."""
    stack = make_stack(own_server.url)
    stack.start_receiver()
    workers = stack.start_workers()
    before = [stack.deliver_event("test.ok", f"evt_{n}") for n in range(20)]
    own_server.kill()
    refused = stack.deliver({"id": "evt_down", "type": "test.ok", "data": {}})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    own_server.start()
    after = wait_until(lambda: _accepted(stack), "the receiver to recover")
    for id in [*before, str(after)]:
        assert stack.wait_for(id, "done").state == "done"
    assert workers.poll() is None


def _accepted(stack: Stack) -> str | None:
    answer = stack.deliver({"id": "evt_down", "type": "test.ok", "data": {"id": "res_1"}})
    return str(answer.json()["id"]) if answer.is_success else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody reaps is not alive.
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_second_receiver_on_the_same_port_is_refused_in_one_line(stack: Stack) -> None:
    process = stack.start("second", "app", "serve", "--port", str(stack.port))
    assert process.wait(20) == 2
    assert stack.log_file("second").read_text().startswith("JOBHOOK_PORT: cannot listen on")


def test_a_stop_answers_what_is_on_its_way(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    receiver = stack.start_receiver()
    assert httpx.get(f"http://127.0.0.1:{stack.port}/readyz").is_success
    receiver.terminate()
    assert receiver.wait(20) == 0
