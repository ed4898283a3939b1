"""Whoever is told of alerts, and whoever tells."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from app.inbox.alerts import KEY
from tests.chaos.fault import fault
from tests.chaos.processes import kill, owner, parent
from tests.chaos.world import World
from tests.support import wait_until
from tests.support.sink import Sink, sink

EVENTS = 60
FIRST_LOOK_SECONDS, TURN_SECONDS = 25.0, 45.0
"""How long the first alert, and the one after a turn that was left, may take on a busy machine."""
LONGEST_SWEEP_GAP_MS = 5000
DIED = "events have died"


@contextmanager
def _told(world: World) -> Iterator[Sink]:
    """Supervisors that know of no alert yet, and tell a sink, which answers nobody. In the end they tell nobody."""
    with sink() as taker:
        taker.go_on.clear()
        _restart(world, {"JOBHOOK_ALERT_URLS": taker.url()})
        world.redis.delete(KEY)
        try:
            wait_until(lambda: any(DIED in one["message"] for one in taker.asked), "an alert", FIRST_LOOK_SECONDS)
            yield taker
        finally:
            taker.go_on.set()
            _restart(world, {})


def _waits(world: World) -> bool:
    """Whether a message has not been taken yet."""
    fields: Any = world.redis.hkeys(KEY)
    return any(field.startswith(b"post:") for field in fields)


def _restart(world: World, environment: dict[str, str]) -> None:
    before = [supervisor.process for supervisor in world.supervisors]
    for supervisor in world.supervisors:
        supervisor.restart_with(environment)
    wait_until(lambda: not any(one.process in before for one in world.supervisors), "new supervisors")
    wait_until(lambda: len(world.workers()) >= len(world.supervisors), "their workers")


@fault("alerts: kill -9 of a supervisor that sends one", quick=False, seconds=70)
def kill_while_sending(world: World) -> float:
    """With the process that sends it, between the claim and the answer. The other supervisor sends it, once."""
    with _told(world) as taker:
        sender = owner(taker.port_of_the_last, [supervisor.pid for supervisor in world.supervisors])
        for pid in (parent(sender), sender) if sender else ():
            kill(world.ledger, pid, "kill -9")
        taker.asked.clear()
        taker.go_on.set()
        with suppress(AssertionError):
            wait_until(lambda: taker.asked and not _waits(world), "the alert", TURN_SECONDS)
        times = sum(DIED in one["message"] for one in taker.asked)
        if times != 1:
            world.ledger.complaints.append(f"an alert whose sender was killed has come {times} times, not once")
    return monotonic()


@fault("alerts: one who is told hangs", seconds=25)
def hang_while_taking(world: World) -> float:
    """Nothing but the alert waits for it: events are worked on, and swept."""
    with _told(world):
        world.stream_on(EVENTS)
        seconds, _ = world.redis.time()
        swept = int(world.redis.get("jobhook:swept") or 0)
        if int(seconds) * 1000 - swept > LONGEST_SWEEP_GAP_MS:
            world.ledger.complaints.append("no sweep while one who is told of alerts hangs")
    return monotonic()
