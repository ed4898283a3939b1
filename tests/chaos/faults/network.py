"""The network between the processes and Redis, by the proxies."""

from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.world import World
from tests.support.stack import PATIENT_ACK_SECONDS

SECONDS, SECONDS_QUICK = 4, 2
CUT_SHARE = 0.1
LATENCY_SECONDS = 0.3
TOO_LATE_SECONDS = PATIENT_ACK_SECONDS + 0.6


@fault("network: replies cut, connections reset", seconds=6)
def cut_replies(world: World) -> float:
    for proxy in world.proxies.values():
        proxy.random.seed(world.random.random())
        proxy.cut = CUT_SHARE
    _last(world)
    for proxy in world.proxies.values():
        proxy.cut = 0.0
    return monotonic()


@fault("network: 300 ms slower", quick=False, seconds=7)
def slow_down(world: World) -> float:
    for proxy in world.proxies.values():
        proxy.delay = LATENCY_SECONDS
    _last(world)
    for proxy in world.proxies.values():
        proxy.delay = 0.0
    return monotonic()


@fault("network: slower than the ack budget", quick=False, seconds=8)
def be_too_late(world: World) -> float:
    """Every delivery then has an honest 503."""
    begun = monotonic()
    world.proxies["receivers"].delay = TOO_LATE_SECONDS
    _last(world)
    world.proxies["receivers"].delay = 0.0
    refused = [d for d in list(world.ledger.deliveries) if d.sent > begun and d.status == 503]
    if not refused:
        world.ledger.complaints.append("slower than the ack budget, and nothing was refused")
    return monotonic()


@fault("network: black hole", quick=False, seconds=8)
def swallow(world: World) -> float:
    for proxy in world.proxies.values():
        world.run(proxy.hold(True))
    _last(world)
    for proxy in world.proxies.values():
        world.run(proxy.hold(False))
    return monotonic()


def _last(world: World) -> None:
    world.pause(SECONDS_QUICK if world.quick else SECONDS)
