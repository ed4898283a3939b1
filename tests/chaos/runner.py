"""One run: episode after episode, each from a steady state over a fault to a steady state; then the oracle."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from tests.chaos.evidence import collect, leftovers
from tests.chaos.fault import Fault
from tests.chaos.handlers import DOOMED, STEPS
from tests.chaos.ledger import Episode
from tests.chaos.oracle import FINAL_STATES, Evidence, Violation, acknowledged, judge
from tests.chaos.world import World
from tests.support import wait_until

STEADY_EVENTS = (5, 25)
"""So many events are sent between one episode and the next fault: the seed says when it strikes."""
DRAIN_SECONDS = 8.0
"""What the end takes: the last answers, the last retries, the oracle."""
PATIENCE = 1.5
"""How much longer than planned a run may take: on a busy machine, or for what does not heal."""
DRAIN_PATIENCE_SECONDS = 8.0


@dataclass(frozen=True)
class Outcome:
    """What a run has shown."""

    evidence: Evidence
    violations: list[Violation]
    seconds: float
    skipped: list[Fault]
    """Faults that there was no time for."""


def plan(faults: Iterable[Fault], rng: Random, *, quick: bool) -> list[Fault]:
    """Every fault once, in an order of the seed's, the spare ones last; in the quick run, one for each row."""
    chosen = [fault for fault in faults if not fault.missing]
    rng.shuffle(chosen)
    if quick:
        chosen = list({fault.row: fault for fault in chosen if fault.quick}.values())
    return sorted(chosen, key=lambda fault: fault.spare)


def planned_seconds(faults: Iterable[Fault]) -> float:
    """How long a run of these takes, at most, on a machine that has nothing else to do."""
    return sum(fault.seconds for fault in faults) + DRAIN_SECONDS


class Runner:
    """Runs a plan in a world."""

    def __init__(self, world: World, seconds: float | None, tell: Callable[[Episode], None]) -> None:
        """`seconds` is how long to go on; None: until every fault of the plan has struck once."""
        self._world = world
        self._tell = tell
        self._seconds = seconds
        self._begun = monotonic()
        self._latest = 0.0
        self._final: set[str] = set()
        self._last: str | None = None
        self._skipped: list[Fault] = []

    def run(self, faults: list[Fault]) -> Outcome:
        """Every fault of the plan; if the time is given, those that fit into it, and some of them again."""
        self._latest = self._begun + (self._seconds or planned_seconds(faults)) * PATIENCE
        for fault in self._in_time(faults):
            self._episode(fault)
        self._world.finish()
        self._drain()
        strays = {"workers without a supervisor": len(self._world.strays())}
        evidence = collect(self._world.ledger, self._world.inbox, strays)
        return Outcome(evidence, self._judge(evidence), monotonic() - self._begun, self._skipped)

    def _in_time(self, faults: list[Fault]) -> Iterator[Fault]:
        if self._seconds is None:
            yield from faults
            return
        until = self._begun + self._seconds - DRAIN_SECONDS

        def fits(fault: Fault) -> bool:
            return monotonic() + fault.seconds < until

        for fault in faults:
            if fits(fault):
                yield fault
            else:
                self._skipped.append(fault)
        while fitting := list(filter(fits, faults)):
            yield self._world.random.choice(fitting)

    def _episode(self, fault: Fault) -> None:
        world, begun = self._world, monotonic()
        world.stream_on(world.random.randint(*STEADY_EVENTS))
        world.note_workers()
        struck = monotonic()
        try:
            healing_from = fault.strike(world)
            healed = self._heal(healing_from)
        except AssertionError as error:  # what wait_until says
            world.ledger.complaints.append(f"{fault.name}: {error}")
            healing_from, healed = monotonic(), self._heal(monotonic())
        episode = Episode(fault.name, fault.row, begun, struck, healing_from, healed, self._last)
        world.ledger.episodes.append(episode)
        self._tell(episode)

    def _heal(self, since: float) -> float | None:
        """When deliveries sent after the fault are done, and all acknowledged before it are final."""
        world = self._world
        probes = [world.spawn(world.sender.insist(n)) for n in range(len(world.receivers))]

        def healed() -> bool:
            known = acknowledged(list(world.ledger.deliveries))
            due = [id for id, answers in known.items() if (answers[0].answered or 0) <= since]
            due += [probe.result() for probe in probes if probe.done()]
            if waiting := set(due) - self._final:
                self._last = min(waiting)
            self._final |= self._are_final(waiting)
            return all(probe.done() for probe in probes) and self._final.issuperset(due)

        try:
            wait_until(healed, patience=self._latest - monotonic())
        except AssertionError:
            return None
        return monotonic()

    def _are_final(self, ids: set[str]) -> set[str]:
        ordered = list(ids)
        pipeline: Any = self._world.redis.pipeline(transaction=False)
        for id in ordered:
            pipeline.hget(f"jobhook:event:{id}", "state")
        try:
            states = pipeline.execute()
        except RedisError:  # not healed yet
            return set()
        return {id for id, state in zip(ordered, states, strict=True) if (state or b"").decode() in FINAL_STATES}

    def _drain(self) -> None:
        redis = self._world.redis

        def drained() -> bool:
            return not any(leftovers(redis).values()) and not self._world.strays()

        try:
            wait_until(drained, patience=DRAIN_PATIENCE_SECONDS)
        except AssertionError:
            return  # the oracle says what is left over

    def _judge(self, evidence: Evidence) -> list[Violation]:
        ledger = self._world.ledger
        unhealed = [episode for episode in ledger.episodes if episode.healed is None]
        return [
            *judge(evidence, STEPS, DOOMED),
            *(Violation("not healed", None, e.struck, f"{e.fault}: not healed in time") for e in unhealed),
            *(Violation("complaint", None, 0, text) for text in ledger.complaints),
        ]
