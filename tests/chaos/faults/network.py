"""The network between the processes and Redis, by the proxies."""

from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.world import World
from tests.support.stack import PATIENT_ACK_SECONDS

SECONDS, SECONDS_QUICK = 4, 2
CUT_SHARE = 0.1
LATENCY_SECONDS = 0.3
TOO_LATE_SECONDS = PATIENT_ACK_SECONDS + 0.6
FAR_AWAY_SECONDS = 0.4
"""The round trip to a Redis 200 ms away."""
DEFAULT_ACK_BUDGET = "1s"
FORGOTTEN_AFTER_SECONDS = 3.0
GOOD_SHARE = 0.7
"""Of deliveries, that have to be answered 200 although something is wrong. Some are lost to stalls of the machine."""


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


@fault("network: Redis 200 ms away from the start", quick=False, seconds=12)
def start_far_away(world: World) -> float:
    """Connecting takes longer than a delivery may, and still the receivers accept what comes."""
    world.proxies["receivers"].delay = FAR_AWAY_SECONDS
    world.restart_receivers({"JOBHOOK_ACK_BUDGET": DEFAULT_ACK_BUDGET})
    begun = monotonic()
    _last(world)
    _expect_good(world, begun, "far away from Redis")
    world.proxies["receivers"].delay = 0.0
    world.restart_receivers({})
    return monotonic()


@fault("network: idle connections forgotten", quick=False, seconds=9)
def forget_idle(world: World) -> float:
    """As NATs and load balancers do: what is sent on them gets no answer, ever."""
    for proxy in world.proxies.values():
        proxy.forgets_after = FORGOTTEN_AFTER_SECONDS
    begun = monotonic()
    world.pause(2 * FORGOTTEN_AFTER_SECONDS)
    _expect_good(world, begun, "with idle connections forgotten")
    for proxy in world.proxies.values():
        proxy.forgets_after = None
    return monotonic()


@fault("network: the receivers' connections forgotten", seconds=4)
def forget_all(world: World) -> float:
    """As by a NAT that has been replaced: also those in use, in the middle of a call."""
    world.proxies["receivers"].forget()
    return monotonic()


def _expect_good(world: World, begun: float, when: str) -> None:
    sent = [d for d in list(world.ledger.deliveries) if d.authentic and d.sent > begun and d.answered]
    accepted = sum(d.status == 200 for d in sent)
    if not sent or accepted < GOOD_SHARE * len(sent):
        world.ledger.complaints.append(f"{when}, {accepted} of {len(sent)} deliveries were answered 200")


def _last(world: World) -> None:
    world.pause(SECONDS_QUICK if world.quick else SECONDS)
