"""What Prometheus gets to see, scraped over HTTP."""

import os
import shutil
import signal
from pathlib import Path

import httpx
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.cli.embedded import EmbeddedServer
from app.inbox.inbox import Inbox
from app.inbox.record import Ended, Outcome
from app.receiver.refusals import REFUSALS
from tests.support import wait_until
from tests.support.processes import children, frozen
from tests.support.stack import KEY, MakeStack, Stack

Samples = dict[tuple[str, ...], float]


def scrape(stack: Stack) -> Samples:
    """The value of every sample, by its name and the values of its labels."""
    answer = httpx.get(f"http://127.0.0.1:{stack.port}/metrics", timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def refuse(stack: Stack) -> None:
    assert httpx.post(stack.url, content=b"{}").status_code == 401


def receiver_processes(pid: int) -> list[int]:
    """The processes that answer, without multiprocessing's own helper."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def end(inbox: Inbox, id: str, outcome: Outcome, *, unhandled: bool = False) -> None:
    taken = inbox.work("w", want=id).taken
    assert taken
    attempt = orjson.dumps({"attempt": 1, "started": 1, "ended": 2, "worker": "w", "outcome": outcome})
    inbox.work("", Ended(id, taken.token, outcome, attempt, delay=3600.0, unhandled=unhandled), want="")


def test_what_redis_knows(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    stack.start_receiver()
    ids = [stack.deliver_event("test.ok", f"evt_{n}") for n in range(5)]
    stack.deliver_event("test.ok", "evt_0")  # a duplicate
    stack.deliver_event("test.ok", "evt_0", changed=True)  # a conflict
    end(stack.inbox, ids[0], "done")
    end(stack.inbox, ids[1], "done", unhandled=True)
    end(stack.inbox, ids[2], "retry")
    end(stack.inbox, ids[3], "dead")
    stack.inbox.work("crashing", want=ids[4])
    stack.inbox.release("crashing", "killed")
    stack.deliver_event("test.ok", "evt_3")  # revives the dead one
    stack.inbox.work("w", want=ids[3])
    stack.redis.zadd("jobhook:open", {ids[2]: 1})
    seen = scrape(stack)
    expected: Samples = {
        ("jobhook_redis_up",): 1,
        ("jobhook_deliveries_total", "accepted"): 5,
        ("jobhook_deliveries_total", "duplicate"): 1,
        ("jobhook_deliveries_total", "revived"): 1,
        ("jobhook_deliveries_total", "conflict"): 1,
        ("jobhook_attempts_total", "done"): 2,
        ("jobhook_attempts_total", "retry"): 1,
        ("jobhook_attempts_total", "dead"): 1,
        ("jobhook_attempts_total", "crashed"): 1,
        ("jobhook_events_total", "done"): 2,
        ("jobhook_events_total", "dead"): 1,
        ("jobhook_events_total", "unhandled"): 1,
        ("jobhook_inbox_events", "queued"): 1,
        ("jobhook_inbox_events", "running"): 1,
        ("jobhook_inbox_events", "retrying"): 2,
        ("jobhook_inbox_events", "done"): 2,
        ("jobhook_inbox_events", "dead"): 0,
        ("jobhook_ack_seconds_count",): 8,
    }
    assert {name: seen[name] for name in expected} == expected
    assert seen["jobhook_oldest_open_event_seconds",] > 1_000_000


def test_an_empty_inbox_shows_every_series_at_zero(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """So that a rate can be told from the first event on."""
    stack = make_stack(server.url)
    stack.start_receiver()
    seen = scrape(stack)
    assert seen.pop(("jobhook_redis_up",)) == 1
    ages = ("_created", "jobhook_key_age_seconds", "jobhook_key_unused_seconds")
    assert {name: value for name, value in seen.items() if value and not name[0].endswith(ages)} == {}
    assert {name[1] for name in seen if name[0] == "jobhook_refused_total"} == {refusal.slug for refusal in REFUSALS}


def test_one_process_counts_refusals_and_acknowledgements(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    stack.start_receiver("--processes", "1")
    refuse(stack)
    stack.deliver_event("test.ok", "evt_1")
    seen = scrape(stack)
    assert seen["jobhook_refused_total", "unauthentic"] == 1
    assert seen["jobhook_ack_seconds_count",] == seen["jobhook_ack_seconds_bucket", "+Inf"] == 1
    assert 0 < seen["jobhook_ack_seconds_sum",] < 5


def test_several_processes_add_up_and_a_dead_one_still_counts(server: EmbeddedServer, make_stack: MakeStack) -> None:
    stack = make_stack(server.url)
    receiver = stack.start_receiver("--processes", "2")
    wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
    first, second = receiver_processes(receiver.pid)
    with frozen(first):
        refuse(stack)
        stack.deliver_event("test.ok", "evt_1")
    with frozen(second):
        refuse(stack)
        refuse(stack)
        stack.deliver_event("test.ok", "evt_2")
        stack.deliver_event("test.ok", "evt_2")
    expected: Samples = {
        ("jobhook_refused_total", "unauthentic"): 3,
        ("jobhook_ack_seconds_count",): 3,
        ("jobhook_deliveries_total", "accepted"): 2,  # of Redis: not added up
        ("jobhook_deliveries_total", "duplicate"): 1,
        ("jobhook_inbox_events", "queued"): 2,
    }
    for frozen_one in (first, second):
        with frozen(frozen_one):
            seen = scrape(stack)
        assert {name: seen[name] for name in expected} == expected
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: first not in receiver_processes(receiver.pid), "its end")
    seen = scrape(stack)
    assert {name: seen[name] for name in expected} == expected


def test_nothing_is_left_of_the_files_in_which_processes_add_up(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    stack = make_stack(server.url, TMPDIR=str(tmp_path))
    receiver = stack.start_receiver("--processes", "2")
    assert len(list(tmp_path.glob("jobhook-metrics-*"))) == 1
    receiver.terminate()
    assert receiver.wait(30) == 0
    assert list(tmp_path.glob("jobhook-metrics-*")) == []


def test_what_a_killed_one_has_left_goes_at_the_next_start_and_nothing_that_is_in_use(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    first, killed, last = (make_stack(server.url, TMPDIR=str(tmp_path)) for _ in range(3))
    first.start_receiver("--processes", "2")
    (used,) = tmp_path.glob("jobhook-metrics-*")
    parent = killed.start_receiver("--processes", "2")
    (left,) = set(tmp_path.glob("jobhook-metrics-*")) - {used}
    parent.kill()
    parent.wait()
    assert left.exists()
    last.start_receiver("--processes", "2")
    assert not left.exists()
    assert used.exists()


def removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_files_that_are_tidied_away_cost_nobody_the_rest(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    """P9: files or the whole folder, by hand or by what tidies /tmp."""
    stack = make_stack(server.url, TMPDIR=str(tmp_path))
    receiver = stack.start_receiver("--processes", "2")
    wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
    (folder,) = tmp_path.glob("jobhook-metrics-*")
    for file in folder.iterdir():
        file.write_bytes(b"\xff" * 64)
    stack.deliver_event("test.ok", "evt_1")
    expected: Samples = {("jobhook_redis_up",): 1, ("jobhook_deliveries_total", "accepted"): 1}
    assert {name: scrape(stack)[name] for name in expected} == expected
    for file in folder.iterdir():
        file.unlink()
    assert {name: scrape(stack)[name] for name in expected} == expected
    wait_until(lambda: removed(folder), "the end of the folder, in which a process may just have made its file anew")
    seen = scrape(stack)
    assert {name: seen[name] for name in expected} == expected
    assert ("jobhook_ack_seconds_count",) in seen  # of the process that was asked
    assert stack.log_lines("metrics of the other processes are gone", at_least=1)
    receiver.terminate()
    assert receiver.wait(30) == 0


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_folder_of_somebody_else_is_not_used(
    processes: str, variable: str, server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    """P9: what others, or dead runs, have counted there is nothing of ours."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    dead_run = make_stack(server.url, TMPDIR=str(tmp_path))
    receiver = dead_run.start_receiver("--processes", "2")
    refuse(dead_run)
    (folder,) = tmp_path.glob("jobhook-metrics-*")
    for file in folder.iterdir():
        (foreign / file.name).write_bytes(file.read_bytes())
    receiver.terminate()
    receiver.wait(30)
    before = {file: file.read_bytes() for file in foreign.iterdir()}
    assert before
    stack = make_stack(server.url, **{variable: str(foreign)})
    stack.start_receiver("--processes", processes)
    assert scrape(stack)["jobhook_refused_total", "unauthentic"] == 0
    refuse(stack)
    assert scrape(stack)["jobhook_refused_total", "unauthentic"] == 1
    assert {file: file.read_bytes() for file in foreign.iterdir()} == before


def test_a_folder_of_somebody_else_that_is_not_there_stops_nobody(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    stack = make_stack(server.url, PROMETHEUS_MULTIPROC_DIR="/nowhere/at/all")
    stack.start_receiver()
    assert scrape(stack)["jobhook_redis_up",] == 1


def test_without_redis_the_rest_is_still_told(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P6."""
    stack = make_stack(own_server.url)
    stack.start_receiver()
    own_server.kill()
    assert stack.deliver({"id": "evt_1", "type": "test.ok", "data": {}}).status_code == 503
    seen = scrape(stack)
    assert seen["jobhook_redis_up",] == 0
    assert seen["jobhook_refused_total", "unavailable"] == 1
    assert not [name for name in seen if name[0].startswith("jobhook_inbox")]
    own_server.start()
    assert scrape(stack)["jobhook_redis_up",] == 1


def test_no_payload_and_no_key_ends_up_in_a_label(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P7: nor could a sender make series without end."""
    stack = make_stack(server.url)
    stack.start_receiver()
    before = scrape(stack).keys()
    stack.deliver({"id": "evt_canary", "type": "canary.type", "data": {"id": "canary"}})
    after = scrape(stack)
    assert after.keys() == before
    assert KEY not in str(after)
