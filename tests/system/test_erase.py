"""Bulk changes, the audit trail, and erasing what is about a person: by the commands alone, with everything running."""

import os
import pty
import signal
import subprocess
import sys
import zlib
from typing import Any

import orjson
import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.inbox.record import Ended
from tests.support import json_lines, wait_until
from tests.support.stack import KEY, ROOT, MakeStack, Stack

CANARY = "Wilhelmina Zoë O'Canary"
SPELLED = (CANARY.encode(), b"Wilhelmina Zo\\u00eb O'Canary", b"Wilhelmina", b"O'Canary")


def dump(redis: "Redis") -> bytes:
    """Every key and value, whatever it is."""
    found: list[Any] = []
    for key in redis.scan_iter("*", count=1000):
        type: Any = redis.type(key)
        read: Any = {
            b"hash": redis.hgetall,
            b"string": redis.get,
            b"zset": lambda key: redis.zrange(key, 0, -1),
            b"list": lambda key: redis.lrange(key, 0, -1),
            b"set": redis.smembers,
            b"stream": redis.xrange,
        }[type]
        found += [key, read(key)]
    return repr(found).encode() + repr([str(one) for one in found]).encode()


def rewritten_log(server: EmbeddedServer, redis: "Redis") -> bytes:
    redis.bgrewriteaof()
    wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"], "the log to be rewritten")
    folder = server._folder
    return b"".join(file.read_bytes() for file in folder.rglob("*") if "aof" in file.name or file.suffix == ".rdb")


def fail_with(stack: Stack, id: str, message: str, outcome: Any = "dead") -> None:
    """An attempt at an event by a worker of the test's own."""
    record = stack.inbox.work("w", want=id).taken
    assert record
    error = {"handler": "ledger", "type": "app.Gone", "message": message, "traceback": f"in {message}"}
    line = {"attempt": 1, "started": 1, "ended": 2, "worker": "w", "outcome": outcome}
    line |= {"handlers": 2, "error": error, "errors": [error]}
    fields = {"step:ledger / greeting": orjson.dumps(message).decode(), "since": "1"}
    fields["tries:ledger"] = orjson.dumps([1, None, message]).decode()
    stack.inbox.work("", Ended(id, record.token, outcome, orjson.dumps(line), 3600.0, fields=fields), want="")


@pytest.fixture
def received(server: EmbeddedServer, make_stack: MakeStack) -> Stack:
    """Only a receiver: the tests are the workers."""
    stack = make_stack(server.url)
    stack.start_receiver()
    return stack


def audited(stack: Stack) -> list[dict[str, Any]]:
    return json_lines(stack.jobhook("audit", "--json").stdout)


# --- bulk


def test_what_a_filter_changes_is_counted_and_asked_for_first(received: Stack) -> None:
    ids = [received.deliver_event("test.ok", f"evt_{n}") for n in range(5)]
    for id in ids[:4]:
        fail_with(received, id, "it")
    words = ("--state", "dead", "--type", "test.*")
    refused = received.jobhook("replay", *words, given="")
    assert refused.returncode == 2
    assert "4 events (4 dead) fit state=dead type=test.*. Nothing was done" in refused.stderr
    assert [received.inbox.get(id).state for id in ids] == ["dead"] * 4 + ["queued"]
    one = received.jobhook("replay", *words, "--yes", "--most", "1")
    assert (one.returncode, one.stdout) == (0, "1 of 1 put back to work.\n")
    rest = received.jobhook("replay", *words, "--yes", "--rate", "100")
    assert rest.stdout == "3 of 3 put back to work.\n"
    assert [received.inbox.get(id).state for id in ids] == ["queued"] * 5
    newest, first = audited(received)
    assert (newest["what"], newest["which"], newest["count"]) == ("replay", "state=dead type=test.*", 3)
    assert first["count"] == 1
    assert "@" in newest["who"]
    assert newest["at"].endswith("Z")


def test_on_a_terminal_it_asks(received: Stack) -> None:
    id = received.deliver_event("test.ok", "evt_1")
    fail_with(received, id, "it")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "app", "replay", "--state", "dead"]
    for answer, state in ((b"n\n", "dead"), (b"y\n", "queued")):
        os.write(ours, answer)
        asked = subprocess.run(
            command, cwd=ROOT, env=received.environment, stdin=theirs, capture_output=True, timeout=60, check=False
        )
        assert b"Shall they be put back to work? [y/N]" in asked.stderr
        assert received.inbox.get(id).state == state
    os.close(ours)
    os.close(theirs)


def test_a_ctrl_c_ends_it_after_the_batch_in_hand_and_says_what_was_done(received: Stack) -> None:
    ids = [received.deliver_event("test.ok", f"evt_{n}") for n in range(6)]
    for id in ids:
        fail_with(received, id, "it")
    command = [sys.executable, "-m", "app", "replay", "--state", "dead", "--yes", "--rate", "0.5"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=received.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: any(received.inbox.get(id).state == "queued" for id in ids), "the first batch")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    queued = [received.inbox.get(id).state for id in ids].count("queued")
    assert out == f"{queued} of 6 put back to work.\n"
    assert f"Interrupted: {6 - queued} were not come to." in err
    (entry,) = audited(received)
    assert (entry["count"], entry["note"]) == (queued, "interrupted")


def test_whatever_is_changed_by_hand_is_in_the_trail(received: Stack) -> None:
    id = received.deliver_event("test.ok", "evt_1")
    fail_with(received, id, "it")
    received.jobhook("replay", id)
    fail_with(received, id, "it")
    received.jobhook("replay", "--dead")
    received.jobhook("pause", "test.*", "--for", "1h")
    received.jobhook("resume")
    received.jobhook("rejected", "--admit", "--yes")
    assert [entry["what"] for entry in audited(received)] == ["admit", "resume", "pause", "replay", "replay"]
    assert "state=dead" in received.jobhook("audit").stdout
    assert len(json_lines(received.jobhook("audit", "--json", "--limit", "2").stdout)) == 2


# --- discard


def test_a_discarded_event_is_a_line_for_good(received: Stack) -> None:
    id, other = (received.deliver_event("test.ok", f"evt_{n}", name=CANARY) for n in range(2))
    fail_with(received, id, CANARY)
    left = received.jobhook("discard", other)
    assert left.returncode == 1
    assert "1 left alone: queued by now" in left.stderr
    assert received.jobhook("discard", "--error", "Gone", "--yes").stdout == "1 of 1 discarded.\n"
    record = received.inbox.get(id)
    assert (record.state, record.body, record.steps, record.resource) == ("done", b"", (), "test/res_1")
    assert record.discarded
    assert CANARY not in str(record)
    shown = received.jobhook("event", id).stdout
    assert "discarded" in shown
    assert "app.Gone" in shown
    (listed,) = json_lines(received.jobhook("events", "--state", "done", "--json").stdout)
    assert listed["discarded"]
    assert received.deliver_event("test.ok", "evt_0", name=CANARY) == id  # known, and stays what it is
    assert received.inbox.get(id).state == "done"
    again = received.jobhook("replay", id)
    assert "emptied anyway: left alone" in again.stderr
    assert received.redis.ttl(f"jobhook:said:{id}") > 0
    assert received.redis.ttl(f"jobhook:said:{id}") > received.settings.retention


# --- erase


def spread(stack: Stack) -> list[str]:
    """Has the name of a person wherever Jobhook keeps anything of what it has received."""
    ids = [stack.deliver_event("contact.updated", f"evt_{n}", id=f"con_{n}", name=CANARY) for n in range(5)]
    stack.deliver({"id": "evt_0", "type": "contact.updated", "data": {"id": "con_0", "name": CANARY}, "sent": CANARY})
    fail_with(stack, ids[0], f"no {CANARY}")
    fail_with(stack, ids[1], f"no {CANARY}", "retry")
    fail_with(stack, ids[2], f"yes {CANARY}", "done")
    conflict = stack.deliver({"id": "evt_2", "type": "contact.updated", "data": {"id": "con_2", "name": CANARY + "!"}})
    named = stack.deliver(
        {"id": f"evt {CANARY}", "type": "x.y", "data": {"id": "O'Canary", "w": "Wilhelmina"}, "n": CANARY}
    )
    ids += [str(conflict.json()["id"]), str(named.json()["id"])]
    assert stack.deliver({"type": "x", "name": CANARY}, **{"X-Signature": "0" * 64}).status_code == 401
    wait_until(lambda: stack.redis.xlen("jobhook:rejected"), "the rejected delivery")
    stack.redis.set("jobhook:api:cache:key:0", f"answer about {CANARY}", ex=60)
    stack.redis.hset(f"jobhook:answers:{ids[0]}", "ledger", zlib.compress(CANARY.encode()))
    stack.redis.hset("jobhook:answers:of-another", "ledger", zlib.compress(b"x" + CANARY.encode()))
    stack.redis.zadd("jobhook:handled:x/O'Canary", {"ledger": 1})
    return ids


def test_a_person_who_is_erased_is_nowhere(own_server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P7: not in Redis, nor in its log once that is rewritten, nor in what any command prints."""
    stack = make_stack(own_server.url)
    stack.start_receiver()
    ids = spread(stack)
    other = stack.deliver_event("contact.updated", "evt_other", id="con_9", name="Somebody else")
    outputs = []
    for text in (CANARY, "Wilhelmina", "O'Canary"):
        done = stack.jobhook("erase", "--search", text, "--yes")
        assert done.returncode == 0, done.stderr
        outputs += [done.stdout, done.stderr]
    assert "erased." in outputs[0]
    held = dump(stack.redis)
    logged = rewritten_log(own_server, stack.redis)
    for command in ("events", "events --json", "export", "audit", "audit --json", "stats", "rejected --body --json"):
        outputs.append(stack.jobhook(*command.split()).stdout)
    outputs += [stack.jobhook("event", id, "--body").stdout for id in ids]
    for spelled in SPELLED:
        for place in (held, logged, "".join(outputs).encode(), stack.logs().encode()):
            assert spelled not in place
    assert b"Somebody else" in held
    assert stack.inbox.get(other).state == "queued"
    records = [stack.inbox.get(id) for id in ids]
    assert {record.state for record in records} == {"done"}
    assert stack.redis.zcard("jobhook:open") == 1
    assert [entry["which"] for entry in audited(stack)] == ["search=(withheld)"] * 3
    # who they were is still known
    again = stack.deliver({"id": "evt_1", "type": "contact.updated", "data": {"id": "con_1", "name": CANARY}, "n": 2})
    assert again.json()["id"] == ids[1]
    assert stack.inbox.get(ids[1]).redelivered == 1
    assert CANARY.encode() not in dump(stack.redis)


def test_everything_about_a_resource_is_erased_whatever_it_says(received: Stack) -> None:
    ids = [received.deliver_event("contact.updated", f"evt_{n}", id=f"con_{n % 2}", name=CANARY) for n in range(4)]
    body = orjson.dumps({"type": "contact.updated", "data": {"id": "con_1"}})
    for content in (body, body.replace(b"con_1", b"con_11")):
        assert received.deliver(content, **{"X-Signature": sign(b"another", content)}).status_code == 401
    wait_until(lambda: received.redis.xlen("jobhook:rejected") == 2, "the rejected deliveries")
    done = received.jobhook("erase", "--resource", "contact/con_1", "--yes")
    assert "2 of 2 erased." in done.stdout
    assert "1 rejected deliveries erased." in done.stdout
    assert [received.inbox.get(id).body == b"" for id in ids] == [False, True, False, True]
    assert received.inbox.get(ids[1]).resource == "contact/con_1"


def test_an_event_that_is_being_worked_on_is_left_and_said(received: Stack) -> None:
    id = received.deliver_event("test.ok", "evt_1", name=CANARY)
    record = received.inbox.work("w").taken
    assert record
    left = received.jobhook("erase", "--search", CANARY, "--yes")
    assert left.returncode == 1
    assert "1 are being worked on: erase again" in left.stderr
    received.inbox.work("w", Ended(id, record.token, "done", b'{"attempt":1,"started":1,"ended":2}'), want="")
    assert received.jobhook("erase", "--search", CANARY, "--yes").returncode == 0
    assert received.inbox.get(id).body == b""


def test_an_erasure_without_words_is_refused(received: Stack) -> None:
    refused = received.jobhook("erase", "--yes")
    assert refused.returncode == 2
    assert "say what" in refused.stderr
    assert KEY not in refused.stderr


def test_whoever_waited_for_the_turn_of_an_erased_event_gets_it(received: Stack) -> None:
    """P2."""
    first, second = (received.deliver_event("test.ok", f"evt_{n}") for n in range(2))
    inbox = received.inbox
    for id in (first, second):
        record = inbox.work("w", want=id).taken
        assert record
        inbox.take_turn(id, record.token, "test/res_1")
    fail_with_turn = inbox.get(first)
    inbox.work("", Ended(first, fail_with_turn.token, "retry", b'{"attempt":1,"started":1,"ended":2}', 3600.0), want="")
    assert received.jobhook("erase", "--search", "evt_0", "--yes").returncode == 0
    assert inbox.get(second).state in {"queued", "retrying"}
    assert received.redis.get("jobhook:turn:test/res_1") != first.encode()
