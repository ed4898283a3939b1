"""Processes that stand still, as on a starved machine, and go on where they were."""

from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.processes import parent, stopped
from tests.chaos.world import LEASE_SECONDS, World

PAST_LEASE_SECONDS = LEASE_SECONDS + 2
"""Long enough for the other supervisor to find the lease expired and for its worker to take over."""


@fault("worker: frozen past its lease", quick=False, seconds=17)
def freeze_past_the_lease(world: World) -> float:
    """Worker and supervisor together, which would kill it. When it goes on, it must be fenced off."""
    held = False
    while not held:
        worker = world.busy_worker()
        with stopped(world.ledger, [parent(worker), worker]):
            held = world.is_busy(worker)
            if held:
                world.pause(PAST_LEASE_SECONDS)
    return monotonic()
