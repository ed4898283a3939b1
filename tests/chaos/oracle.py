"""The oracle: what was promised, compared with what was noted and what is stored. Pure functions.

It knows nothing of the product but its words: the states of a record, and the names in its history.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from tests.chaos.ledger import Delivery, Effect, Interruption

FINAL_STATES = ("done", "dead")
HONEST_REFUSAL = 503
FORGERY_REFUSAL = 401
SLACK_SECONDS = 0.1
"""A signal takes a moment to end a process: an effect may be noted just after the kill was."""

Rule = Literal["lost", "repeated", "forged", "invented", "refused", "left over", "not healed", "complaint"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, as far as it is judged."""

    state: str
    body: bytes
    type: str = "chaos.plain"
    attempts: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What a run has left behind."""

    deliveries: Sequence[Delivery]
    effects: Sequence[Effect]
    """In the order of time."""
    interruptions: Sequence[Interruption]
    records: Mapping[str, Stored]
    leftovers: Mapping[str, int] = field(default_factory=dict)
    """What has to be empty at the end (open events, leases, the queue, …), and how many there are."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    rule: Rule
    event: str | None
    at: float
    """When what it is about happened; 0 if that is at the end."""
    text: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """An effect that happened once more."""

    event: str
    step: str
    at: float
    excuse: str | None
    """What has cut the step the first time; None if nothing has."""


def judge(evidence: Evidence, steps: Mapping[str, Sequence[str]], doomed: str) -> list[Violation]:
    """Every broken promise. `steps` has the effects due for each type of event; `doomed` ends as dead."""
    return [
        *_lost(evidence, steps, doomed),
        *_duplicated(evidence.deliveries),
        *_repeated(evidence),
        *_again_after_the_end(evidence.effects),
        *_wrong_keys(evidence.effects),
        *_strangers(evidence),
        *_refused(evidence.deliveries),
        *(Violation("left over", None, 0, f"{n} × {what}") for what, n in evidence.leftovers.items() if n),
    ]


def acknowledged(deliveries: Sequence[Delivery]) -> dict[str, list[Delivery]]:
    """The deliveries answered 200, by the event's id."""
    found: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        if delivery.status == 200 and delivery.id:
            found[delivery.id].append(delivery)
    return found


def _lost(evidence: Evidence, steps: Mapping[str, Sequence[str]], doomed: str) -> Iterator[Violation]:
    noted = {(effect.event, effect.step) for effect in evidence.effects if effect.kind == "effect"}
    said = {delivery.body: delivery.said for delivery in evidence.deliveries}
    for id, deliveries in acknowledged(evidence.deliveries).items():
        at = deliveries[0].answered or 0.0
        record = evidence.records.get(id)
        if record is None:
            yield Violation("lost", id, at, "answered 200, and there is no record")
            continue
        if any(delivery.said != said.get(record.body) for delivery in deliveries):
            yield Violation("lost", id, at, "answered 200, and the record says something else")
        if record.state not in FINAL_STATES:
            yield Violation("lost", id, at, f"answered 200, and it is {record.state} at the end")
        elif (record.state == "dead") != (record.type == doomed):
            yield Violation("lost", id, at, f"{record.type} ended as {record.state}")
        for step in steps[record.type]:
            if record.state in FINAL_STATES and (id, step) not in noted:
                yield Violation("lost", id, at, f"{record.state}, and step {step!r} has had no effect")


def _duplicated(deliveries: Sequence[Delivery]) -> Iterator[Violation]:
    """What says the same is one event, in whatever bytes, and new at most once."""
    ids: dict[bytes, set[str]] = defaultdict(set)
    for id, known in acknowledged(deliveries).items():
        ids[known[0].said].add(id)
        news = [delivery for delivery in known if delivery.verdict == "accepted"]
        if len(news) > 1:
            yield Violation("repeated", id, news[1].answered or 0.0, f"accepted {len(news)} times as new")
    for several in ids.values():
        if len(several) > 1:
            yield Violation("repeated", min(several), 0, f"what says the same is events {sorted(several)}")


def repeats(evidence: Evidence) -> list[Repeat]:
    """Every effect after a step's first, with what explains it. A reason explains one repeat per process."""
    used: set[tuple[int, int]] = set()
    overruns = {id: sum(map(_overrun, record.attempts)) for id, record in evidence.records.items()}
    found: list[Repeat] = []
    for (event, step), effects in _by_step(evidence.effects).items():
        for before, after in pairwise(effects):
            excuse = _excuse(before, after, evidence.interruptions, used)
            if excuse is None and overruns.get(event, 0):
                overruns[event] -= 1
                excuse = "the handler timeout"
            found.append(Repeat(event, step, after.at, excuse))
    return found


def _by_step(effects: Sequence[Effect]) -> dict[tuple[str, str], list[Effect]]:
    found: dict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in effects:
        if effect.kind == "effect":
            found[effect.event, effect.step].append(effect)
    return found


def _excuse(
    before: Effect, after: Effect, interruptions: Sequence[Interruption], used: set[tuple[int, int]]
) -> str | None:
    for number, reason in enumerate(interruptions):
        struck = reason.pid in {None, before.pid}
        meanwhile = reason.begun <= after.at and reason.ended >= before.at - SLACK_SECONDS
        if struck and meanwhile and (number, before.pid) not in used:
            used.add((number, before.pid))
            return reason.what
    return None


def _overrun(attempt: dict[str, Any]) -> bool:
    return str(attempt.get("error", {}).get("type", "")).endswith("HandlerTimeout")


def _repeated(evidence: Evidence) -> Iterator[Violation]:
    for repeat in repeats(evidence):
        if repeat.excuse is None:
            text = f"step {repeat.step!r} has had its effect once more, and nothing has cut it"
            yield Violation("repeated", repeat.event, repeat.at, text)


def _again_after_the_end(effects: Sequence[Effect]) -> Iterator[Violation]:
    finished: dict[tuple[str, str], float] = {}
    for effect in effects:
        step = effect.event, effect.step
        if effect.kind == "finished":
            finished.setdefault(step, effect.at)
        elif step in finished:
            text = f"step {effect.step!r} was recorded as finished, and has run again"
            yield Violation("repeated", effect.event, effect.at, text)


def _wrong_keys(effects: Sequence[Effect]) -> Iterator[Violation]:
    """One key for each step, and another for each other."""
    owners: dict[str, tuple[str, str]] = {}
    for step, noted in _by_step(effects).items():
        for key in {effect.key for effect in noted}:
            if owners.setdefault(key, step) != step:
                yield Violation("repeated", step[0], noted[0].at, f"step {step[1]!r} has the key of {owners[key]}")
        if len({effect.key for effect in noted}) > 1:
            yield Violation("repeated", step[0], noted[-1].at, f"step {step[1]!r} has had several keys")


def _strangers(evidence: Evidence) -> Iterator[Violation]:
    sent = {delivery.body for delivery in evidence.deliveries if delivery.authentic}
    forged = {delivery.body for delivery in evidence.deliveries if not delivery.authentic} - sent
    for id, record in evidence.records.items():
        if record.body in forged:
            yield Violation("forged", id, 0, "what was not authentic is stored")
        elif record.body not in sent:
            yield Violation("invented", id, 0, "stored, and never sent")
    for event in {effect.event for effect in evidence.effects} - set(evidence.records):
        yield Violation("invented", event, 0, "processed, and there is no record")


def _refused(deliveries: Sequence[Delivery]) -> Iterator[Violation]:
    """Our own trouble is a 503 (P6); a forgery is a 401, or a 503 if even that cannot be told."""
    for delivery in deliveries:
        honest = {200, HONEST_REFUSAL} if delivery.authentic else {FORGERY_REFUSAL, HONEST_REFUSAL}
        if delivery.status is not None and delivery.status not in honest:
            rule: Rule = "refused" if delivery.authentic else "forged"
            yield Violation(rule, delivery.id, delivery.sent, f"answered {delivery.status}")
