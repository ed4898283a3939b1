"""The primary dies, hangs, or is replaced on request; Sentinel promotes a replica. Healing counts from then on."""

from redis import Redis

from tests.chaos.failover import FailoverWorld
from tests.chaos.fault import fault
from tests.chaos.processes import stopped

PAUSE_MS = 15_000


@fault("primary: kill -9", quick=False, seconds=18, world=FailoverWorld)
def kill_primary(world: FailoverWorld) -> float:
    world.be_complete()
    return world.await_promotion(world.kill_primary())


@fault("primary: frozen until it is replaced", quick=False, seconds=18, world=FailoverWorld)
def freeze_primary(world: FailoverWorld) -> float:
    """It comes back not knowing that it is none any more."""
    world.be_complete()
    primary = world.topology.primary
    with stopped(world.ledger, [primary.pid]):
        return world.await_promotion(primary)


@fault("primary: replaced on request", quick=False, seconds=12, world=FailoverWorld)
def replace_primary(world: FailoverWorld) -> float:
    """As deploy/README.md says: it takes no writes meanwhile."""
    world.be_complete()
    with Redis(port=world.topology.primary.port) as client:
        client.client_pause(PAUSE_MS, all=False)
    return world.await_promotion(world.topology.demote_primary())
