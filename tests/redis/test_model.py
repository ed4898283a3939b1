"""The inbox against a model of it: any sequence of deliveries, attempts, crashes, losses and sweeps.

The model is plain Python and knows no Redis. After every step, everything that the inbox keeps must be
what the model says; and at the end of each sequence every event must come to its end (P2).
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import hypothesis
import orjson
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from app.config.settings import Settings
from app.delivery.identity import DIGEST_BYTES, ID_LENGTH
from app.inbox.inbox import Inbox
from app.inbox.record import OPEN_STATES, STATES, Delivery, Ended, Outcome, Record, Sweep
from app.receiver.intake import Intake, Receipt
from tests.support.deliveries import delivery

EXAMPLES, STEPS = 40, 50
MAX_ATTEMPTS = 2
LONG_AGO_MS = 60_000
"""Longer than the sweep's patience."""
FAR_OFF_SECONDS = 3600.0
ROUNDS_TO_THE_END = MAX_ATTEMPTS + 3
"""Each brings every open event at least one attempt further."""

SHRINKING_SECONDS = 400
"""What a failure may take to be brought into its shortest form; all being well it takes some ten."""

LIST, JOB = "rq:queue:jobhook", "rq:job:"
KEYS = ("a", "b")
BODIES = (
    b"no JSON",
    b'{"data":{"n":1}}',
    b'{"data": {"n": 1}, "attempt": 2}',
    b'{"data":{"n":2}}',
    b'{"data": {"n": 2}}',
)
"""Of three meanings; two of them are spelled in two ways."""
WORKERS = ("w1", "w2")
T = TypeVar("T", str, tuple[str, int])
OUTCOMES: tuple[Outcome, ...] = ("done", "retry", "dead")


def conflict_id(id: str, digest: bytes) -> str:
    return hashlib.sha1(id.encode() + digest, usedforsecurity=False).hexdigest()[:ID_LENGTH]


@dataclass
class Modelled:
    """One event."""

    body: bytes
    digest: bytes
    conflict_of: str | None = None
    state: str = "queued"
    token: int = 0
    attempt: int = 0
    crashes: int = 0
    redelivered: int = 0
    rewritten: int = 0
    rewritten_body: bytes | None = None
    worker: str | None = None
    steps: dict[str, Any] = field(default_factory=dict)
    history: dict[int, bytes | None] = field(default_factory=dict)
    """By token, how each attempt ended; None for a crash, whose line the inbox writes itself."""


@dataclass
class Model:
    """The inbox. Time is a number that grows with each thing that happens."""

    events: dict[str, Modelled] = field(default_factory=dict)
    markers: dict[str, bytes] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)
    queued_at: dict[str, int] = field(default_factory=dict)
    due_at: dict[str, int] = field(default_factory=dict)
    """Of the retries whose time has come."""
    lapsed: set[str] = field(default_factory=set)
    """Running, but their leases have run out."""
    finished: dict[str, set[str]] = field(default_factory=lambda: {"done": set(), "dead": set()})
    expired: set[tuple[str, str]] = field(default_factory=set)
    """States and ids of the index entries past their retention."""
    counts: Counter[str] = field(default_factory=Counter)
    now: int = 0

    def within(self, *states: str) -> list[str]:
        return sorted(id for id, event in self.events.items() if event.state in states)

    def deliver(self, delivery: Delivery) -> tuple[str, str]:
        status, id = self._admit(delivery.identity.id, delivery.identity.digest, delivery.body)
        self.counts[f"deliveries:{status}"] += 1
        return status, id

    def _admit(self, id: str, digest: bytes, body: bytes) -> tuple[str, str]:
        known = self._known(id)
        if known is None:
            return self._create("accepted", id, digest, Modelled(body, digest))
        if known == digest:
            self.markers[id] = digest
            return self._redeliver(id, body), id
        conflict = conflict_id(id, digest)
        if self._known(conflict) is None:
            return self._create("conflict", conflict, digest, Modelled(body, digest, conflict_of=id))
        self.markers[conflict] = digest
        return self._redeliver(conflict, body), conflict

    def _known(self, id: str) -> bytes | None:
        """The digest of what has been said under an id."""
        return self.markers.get(id) or (self.events[id].digest if id in self.events else None)

    def _create(self, status: str, id: str, digest: bytes, event: Modelled) -> tuple[str, str]:
        self.markers[id] = digest
        self.events[id] = event
        self._enqueue(id)
        return status, id

    def _redeliver(self, id: str, body: bytes) -> str:
        event = self.events.get(id)
        if event is None:
            return "duplicate"
        event.redelivered += 1
        if body != event.body:
            event.rewritten += 1
            event.rewritten_body = body
        if event.state != "dead":
            return "duplicate"
        self._revive(id)
        return "revived"

    def _enqueue(self, id: str) -> None:
        self.events[id].state = "queued"
        self.line.append(id)
        self.jobs.add(id)
        self.queued_at[id] = self.now

    def _revive(self, id: str) -> None:
        event = self.events[id]
        if event.state == "done":
            event.steps.clear()
        self.finished.get(event.state, set()).discard(id)
        self.expired.discard((event.state, id))
        self.due_at.pop(id, None)
        event.attempt = event.crashes = 0
        self._enqueue(id)

    def take(self, worker: str) -> str | None:
        while self.line:
            id = self.line.pop(0)
            self.jobs.discard(id)
            if self.take_one(id, worker):
                return id
        return None

    def take_one(self, id: str, worker: str) -> bool:
        event = self.events.get(id)
        if event is None or event.state != "queued":
            return False
        del self.queued_at[id]
        event.state, event.worker = "running", worker
        event.token += 1
        event.attempt += 1
        return True

    def step(self, id: str, token: int, name: str, result: Any) -> bool:
        event = self.events.get(id)
        if event is None or event.token != token or event.state != "running":
            return False
        event.steps[name] = result
        return True

    def finish(self, id: str, token: int, outcome: Outcome, line: bytes, due: bool) -> bool:
        event = self.events.get(id)
        if event is None or event.token != token:
            return False
        if event.state != "running":
            if event.history.get(token) == line:
                return True
            if outcome != "done" or event.state not in OPEN_STATES:
                return False
        self._leave(id)
        event.history[token] = line
        self.counts[f"attempts:{outcome}"] += 1
        if outcome == "retry":
            self._retry(id, due)
        else:
            self._close(id, outcome)
        return True

    def _leave(self, id: str) -> None:
        self.queued_at.pop(id, None)
        self.due_at.pop(id, None)
        self.lapsed.discard(id)

    def _retry(self, id: str, due: bool) -> None:
        self.events[id].state = "retrying"
        if due:
            self.due_at[id] = self.now

    def _close(self, id: str, state: str) -> None:
        self.events[id].state = state
        self.finished[state].add(id)
        self.expired.discard((state, id))
        self.counts[f"events:{state}"] += 1

    def _crash(self, id: str) -> None:
        event = self.events[id]
        self._leave(id)
        event.history[event.token] = None
        self.counts["attempts:crashed"] += 1
        event.crashes += 1
        if event.crashes >= MAX_ATTEMPTS:
            self._close(id, "dead")
        else:
            self._retry(id, due=event.crashes == 1)  # at once the first time, a second later the next

    def release(self, worker: str, counts: bool) -> set[str]:
        ids = {id for id in self.within("running") if self.events[id].worker == worker}
        for id in ids:
            if counts:
                self._crash(id)
            else:
                self._leave(id)
                self.events[id].attempt -= 1
                self._retry(id, due=True)
        return ids

    def sweep(self) -> Sweep:
        """With all that is in line having been there for longer than the sweep's patience."""
        expired = sorted(self.lapsed)
        for id in expired:
            self._crash(id)
        due = sorted(self.due_at, key=lambda due: (self.due_at[due], due))
        for id in due:
            del self.due_at[id]
            self._enqueue(id)
        while self.line and self.line[0] not in self.queued_at:
            self.jobs.discard(self.line.pop(0))
        horizon = self.queued_at[self.line[0]] if self.line else self.now
        lost = sorted((at, id) for id, at in self.queued_at.items() if at < horizon)
        for _, id in lost:
            self._enqueue(id)
        for state, id in self.expired:
            self.finished[state].discard(id)
        trimmed = len(self.expired)
        self.expired.clear()
        return Sweep(len(due), len(expired), len(lost), trimmed)

    def replay(self, id: str) -> str | None:
        event = self.events.get(id)
        state = event.state if event else None
        if state in {"done", "dead", "retrying"}:
            self._revive(id)
        return state

    def forget(self, id: str) -> None:
        """The record has expired, and with a dead one its marker."""
        state = self.events.pop(id).state
        self.expired.add((state, id))
        if state == "dead":
            self.markers.pop(id, None)

    def kept(self) -> dict[str, Any]:
        """Everything that has to be found in Redis."""
        indexes = {state: set(self.within(state)) for state in OPEN_STATES}
        return {
            "events": self.events,
            "markers": self.markers,
            "line": self.line,
            "jobs": self.jobs,
            "indexes": {**indexes, "open": set(self.within(*OPEN_STATES)), **self.finished},
            "immortal": set(self.within(*OPEN_STATES)),
            "forgettable": set(self.within("dead")) & self.markers.keys(),
            "counts": dict(self.counts),
        }


def found(redis: "Redis", retention: float) -> dict[str, Any]:
    """The same, as it is."""
    ids = {key.decode().rpartition(":")[2] for key in redis.scan_iter("jobhook:event:*")}
    markers = [key.decode() for key in redis.scan_iter("jobhook:said:*")]
    assert all(redis.ttl(key) > 0 for key in markers)
    counts: Any = redis.hgetall("jobhook:counts")
    line: Any = redis.lrange(LIST, 0, -1)
    return {
        "events": {id: _read(redis, id) for id in ids},
        "markers": {key.rpartition(":")[2]: redis.get(key) for key in markers},
        "line": [id.decode() for id in line],
        "jobs": {key.decode().removeprefix(JOB) for key in redis.scan_iter(JOB + "*")},
        "indexes": {state: _members(redis, state) for state in (*STATES, "open")},
        "immortal": {id for id in ids if redis.ttl(f"jobhook:event:{id}") == -1},
        # A dead event's marker goes with its record, or a redelivery after that would be swallowed (P4).
        "forgettable": {key.rpartition(":")[2] for key in markers if redis.ttl(key) <= retention},
        "counts": {name.decode(): int(number) for name, number in counts.items()},
    }


def _members(redis: "Redis", index: str) -> set[str]:
    members: Any = redis.zrange(f"jobhook:{index}", 0, -1)
    return {id.decode() for id in members}


def _read(redis: "Redis", id: str) -> Modelled:
    raw: Any = redis.hgetall(f"jobhook:event:{id}")
    fields: dict[str, bytes] = {name.decode(): value for name, value in raw.items()}
    history = {int(name[8:]): line for name, line in fields.items() if name.startswith("attempt:")}
    return Modelled(
        body=fields["body"],
        digest=fields["said"],
        conflict_of=fields["conflict_of"].decode() if "conflict_of" in fields else None,
        state=fields["state"].decode(),
        token=int(fields.get("token", 0)),
        attempt=int(fields.get("attempt", 0)),
        crashes=int(fields.get("crashes", 0)),
        redelivered=int(fields.get("redelivered", 0)),
        rewritten=int(fields.get("rewritten", 0)),
        rewritten_body=fields.get("rewritten_body"),
        worker=fields["worker"].decode() if "worker" in fields else None,
        steps={name[5:]: orjson.loads(fields[name]) for name in fields if name.startswith("step:")},
        history={token: None if b'"crashed"' in line else line for token, line in history.items()},
    )


picks = st.integers(0, 99)
"""Which one of however many there are."""


class Machine(RuleBasedStateMachine):
    """Does everything to both."""

    def __init__(self, redis: "Redis", settings: Settings) -> None:
        super().__init__()
        self.redis = redis
        self.inbox = Inbox(redis, settings)
        self.intake = Intake(settings)
        self.runner = asyncio.Runner()
        self.model = Model()
        self.sent: dict[str, Delivery] = {}
        self.leases: list[tuple[str, int]] = []

    @initialize()
    def empty(self) -> None:
        self.redis.flushall()
        self.inbox.sweep()  # which also leaves the template of jobs

    def later(self) -> None:
        """Moves both clocks on: what happens in one step has a millisecond of its own."""
        self.model.now += 1
        before = self._milliseconds()
        while self._milliseconds() == before:
            pass

    def _milliseconds(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds * 1000 + microseconds // 1000)

    @rule(several=st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(BODIES)), min_size=1, max_size=3))
    def deliver(self, several: list[tuple[str, bytes]]) -> None:
        """New ones, redeliveries and conflicts, in one batch."""
        self._deliver([delivery(body, key) for key, body in several])

    @precondition(lambda self: bool(self.model.events))
    @rule(pick=picks)
    def redeliver(self, pick: int) -> None:
        self._deliver([self.sent[_pick(self.model.events, pick)]])

    def _deliver(self, made: list[Delivery]) -> None:
        self.later()

        async def accept() -> list[Receipt]:
            return list(await asyncio.gather(*map(self.intake.accept, made)))

        receipts = self.runner.run(accept())
        assert receipts == [self.model.deliver(one) for one in made]
        self.sent |= {receipt.id: one for receipt, one in zip(receipts, made, strict=True)}

    @rule(worker=st.sampled_from(WORKERS))
    def take(self, worker: str) -> None:
        self.later()
        taken = self.inbox.work(worker).taken
        assert (taken.id if taken else None) == self.model.take(worker)
        self._note(taken)

    @precondition(lambda self: bool(self.model.line))
    @rule(worker=st.sampled_from(WORKERS))
    def take_as_stock_rq_does(self, worker: str) -> None:
        """First popped, then begun."""
        self.later()
        popped: Any = self.redis.lpop(LIST)
        id = self.model.line.pop(0)
        assert popped.decode() == id
        taken = self.inbox.work(worker, want=id).taken
        assert (taken is not None) == self.model.take_one(id, worker)
        self._note(taken)

    def _note(self, taken: Record | None) -> None:
        if taken:
            assert taken.token == self.model.events[taken.id].token
            self.leases.append((taken.id, taken.token))

    @precondition(lambda self: bool(self.model.within("running")))
    @rule(pick=picks, name=st.sampled_from(("first", "second")), result=st.integers(0, 9))
    def step(self, pick: int, name: str, result: int) -> None:
        id = _pick(self.model.within("running"), pick)
        self._step((id, self.model.events[id].token), name, result)

    @precondition(lambda self: bool(self.leases))
    @rule(pick=picks, name=st.sampled_from(("first", "second")), result=st.integers(0, 9))
    def step_of_any_attempt(self, pick: int, name: str, result: int) -> None:
        """Mostly one that is over."""
        self._step(_pick(self.leases, pick), name, result)

    def _step(self, lease: tuple[str, int], name: str, result: int) -> None:
        assert self.inbox.record_step(*lease, name, orjson.dumps(result)) == self.model.step(*lease, name, result)

    @precondition(lambda self: bool(self.model.within("running")))
    @rule(pick=picks, outcome=st.sampled_from(OUTCOMES), due=st.booleans())
    def finish(self, pick: int, outcome: Outcome, due: bool) -> None:
        id = _pick(self.model.within("running"), pick)
        self._finish((id, self.model.events[id].token), outcome, due)

    @precondition(lambda self: bool(self.leases))
    @rule(pick=picks, outcome=st.sampled_from(OUTCOMES), due=st.booleans())
    def finish_any_attempt(self, pick: int, outcome: Outcome, due: bool) -> None:
        """Mostly one that is over."""
        self._finish(_pick(self.leases, pick), outcome, due)

    def _finish(self, lease: tuple[str, int], outcome: Outcome, due: bool) -> None:
        self.later()
        line = orjson.dumps({"attempt": 1, "outcome": outcome, "due": due})
        ended = Ended(*lease, outcome, line, delay=0.0 if due else FAR_OFF_SECONDS)
        assert self.inbox.work("", ended, want="").recorded == self.model.finish(*lease, outcome, line, due)

    @precondition(lambda self: bool(self.model.within("running")))
    @rule(pick=picks, outcome=st.sampled_from(OUTCOMES), result=st.integers(0, 9))
    def hang_and_resume(self, pick: int, outcome: Outcome, result: int) -> None:
        """P5: a worker is stopped for so long that another one has taken over; then it goes on."""
        id = _pick(self.model.within("running"), pick)
        stale = (id, self.model.events[id].token)
        self.vanish(pick)
        self.sweep()
        self.take("w1")
        self.take("w2")
        self._step(stale, "first", result)
        self._finish(stale, outcome, due=True)

    @rule(worker=st.sampled_from(WORKERS), counts=st.booleans())
    def crash(self, worker: str, counts: bool) -> None:
        """Seen by the supervisor; or by the worker itself, after a reply got lost."""
        self.later()
        assert set(self.inbox.release(worker, "It died.", counts=counts)) == self.model.release(worker, counts)
        self._put_off()

    @precondition(lambda self: bool(self.model.within("running")))
    @rule(pick=picks)
    def vanish(self, pick: int) -> None:
        """Seen by nobody: the lease runs out."""
        id = _pick(self.model.within("running"), pick)
        self._set_score("running", [id], 1)
        self.model.lapsed.add(id)

    @precondition(lambda self: bool(self.model.within("retrying")))
    @rule(pick=picks)
    def wait(self, pick: int) -> None:
        """The time of a retry comes."""
        id = _pick(self.model.within("retrying"), pick)
        self._set_score("retrying", [id], 1)
        self.model.due_at[id] = 0

    @rule()
    def sweep(self) -> None:
        self.redis.delete("jobhook:swept")
        self.later()
        for id in self.model.queued_at:
            self.redis.zincrby("jobhook:queued", -LONG_AGO_MS, id)
        assert self.inbox.sweep() == self.model.sweep()
        self._put_off()

    @rule()
    def sweep_too_soon(self) -> None:
        """Does nothing."""
        self.redis.set("jobhook:swept", self._milliseconds())
        assert self.inbox.sweep() is None

    def _put_off(self) -> None:
        """Retries that are due in a second become due when the model says so."""
        far_off = self._milliseconds() + int(FAR_OFF_SECONDS * 1000)
        self._set_score("retrying", set(self.model.within("retrying")) - self.model.due_at.keys(), far_off)

    def _set_score(self, index: str, ids: Iterable[str], score: int) -> None:
        if ids := list(ids):
            self.redis.zadd(f"jobhook:{index}", dict.fromkeys(ids, score), xx=True)

    @precondition(lambda self: bool(self.model.line))
    @rule(pick=picks)
    def lose_the_instruction(self, pick: int) -> None:
        """A stock worker has popped it and died, or the list was tampered with."""
        id = _pick(self.model.line, pick)
        self.redis.lrem(LIST, 0, id)
        self.redis.delete(JOB + id)
        self.model.line = [other for other in self.model.line if other != id]
        self.model.jobs.discard(id)

    @precondition(lambda self: bool(self.model.events))
    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        self.later()
        id = _pick(self.model.events, pick)
        assert self.inbox.replay([id]) == {id: self.model.replay(id)}

    @precondition(lambda self: bool(self.model.within("done", "dead")))
    @rule(pick=picks)
    def reach_the_retention(self, pick: int) -> None:
        id = _pick(self.model.within("done", "dead"), pick)
        event = self.model.events[id]
        state = event.state
        self.redis.delete(f"jobhook:event:{id}", *([f"jobhook:said:{id}"] if state == "dead" else []))
        self._forget_former_id(event)
        self._set_score(state, [id], 1)
        self.model.forget(id)

    @precondition(lambda self: bool(set(self.model.markers) - set(self.model.within("done", "dead"))))
    @rule(pick=picks)
    def reach_the_dedupe_window(self, pick: int) -> None:
        """It is never shorter than the retention, so the record is gone by then, or still open."""
        id = _pick(set(self.model.markers) - set(self.model.within("done", "dead")), pick)
        self.redis.delete(f"jobhook:said:{id}")
        if id in self.model.events:
            self._forget_former_id(self.model.events[id])
        del self.model.markers[id]

    def _forget_former_id(self, event: Modelled) -> None:
        """The marker for receivers of earlier releases lives no longer than a record after its end."""
        if event.conflict_of:
            digest = hashlib.sha256(event.body).digest()[:DIGEST_BYTES]
            self.redis.delete(f"jobhook:seen:{conflict_id(event.conflict_of, digest)}")

    @invariant()
    def the_inbox_is_as_modelled(self) -> None:
        assert found(self.redis, self.inbox.settings.retention) == self.model.kept()

    @invariant()
    def the_figures_agree(self) -> None:
        stats = self.inbox.stats()
        assert stats.states == {state: len(self.model.kept()["indexes"][state]) for state in STATES}

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.runner.run(self.intake.close())
            self.runner.close()

    def everything_ends(self) -> None:
        """P2: whatever has happened, all open events are done or dead after a few rounds of healing."""
        for _ in range(ROUNDS_TO_THE_END):
            for state in ("queued", "running", "retrying"):
                self._set_score(state, _members(self.redis, state), 1)
            self.redis.delete("jobhook:swept")
            self.inbox.sweep()
            while taken := self.inbox.work("last").taken:
                self.inbox.work("last", Ended(taken.id, taken.token, "done", b"{}"), want="")
        assert not _members(self.redis, "open")
        assert {_read(self.redis, id).state for id in self.model.events} <= {"done", "dead"}


def _pick(choices: Iterable[T], pick: int) -> T:
    ordered = sorted(choices)
    return ordered[pick % len(ordered)]


@pytest.mark.timeout(SHRINKING_SECONDS)
def test_the_inbox_does_what_its_model_does(
    redis: "Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2, P4, P5. Whether it is too soon for a sweep is said by the rules, not by how fast this machine is."""
    monkeypatch.setattr("app.inbox.inbox.SWEEP_INTERVAL_MS", int(FAR_OFF_SECONDS * 1000))
    limited = settings.model_copy(update={"max_attempts": MAX_ATTEMPTS})
    machine = cast(type[RuleBasedStateMachine], lambda: Machine(redis, limited))
    many = hypothesis.settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    run_state_machine_as_test(machine, settings=many)
