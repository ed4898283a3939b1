"""A strike at every boundary to Redis: each call of a script, before it, after it and in between.

The proxy sees the call and strikes; the product has no hook for it.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Literal

from tests.chaos.fault import fault
from tests.chaos.processes import kill
from tests.chaos.proxy import MOMENTS, Link, Moment, Trap, close_after
from tests.chaos.wire import CALLS, SCRIPTS
from tests.chaos.world import LEASE_SECONDS, World
from tests.support import wait_until

Blow = Literal["kill -9", "reset"]

MOST_SKIPPED = 6
PATIENCE_SECONDS = 10.0
"""How long a call may not come."""
RARE = ("sweep", "release", "replay")
"""Calls that come one by one, so that none is let pass."""


def strike(call: str, moment: Moment, blow: Blow, world: World) -> float:
    """Waits for the call, and strikes."""
    for script in SCRIPTS:  # a call of one that is not known is made again with its text
        world.stack.redis.script_load(script.text)
    proxy = world.proxies["receivers" if call == "accept" else "workers"]
    skip = 0 if call in RARE else world.random.randrange(MOST_SKIPPED)
    trap = Trap(call, moment, _act(world, moment, blow, f"{blow} at {call}, {moment}"), skip)
    proxy.trap = trap
    _provoke(call, world)
    wait_until(trap.sprung.is_set, f"a call of {call}", patience=PATIENCE_SECONDS)
    struck = monotonic()
    if call == "replay":
        world.replay_until_done()
    # The supervisor that saw a worker die is dead itself: the event waits for the end of its lease.
    return struck + LEASE_SECONDS * (call == "release" and blow == "kill -9" and moment == "request seen")


def _act(world: World, moment: Moment, blow: Blow, what: str) -> Callable[[Link], None]:
    if blow == "kill -9":
        return lambda link: world.kill_owner(link, what)
    return close_after if moment in {"reply delivered", "reply cut"} else Link.reset  # a reset overtakes a reply


def _provoke(call: str, world: World) -> None:
    if call == "release":
        kill(world.ledger, world.busy_worker(), "kill -9")
    elif call == "replay":
        world.start_replay()


for _call in CALLS:
    _long = _call == "release"
    for _moment in MOMENTS:
        _register = fault(
            f"kill -9 at {_call}: {_moment}",
            f"kill -9 at the call of `{_call}`",
            quick=not _long,
            seconds=15 if _long else 2,
        )
        _register(partial(strike, _call, _moment, "kill -9"))
    for _moment in (*MOMENTS, "reply cut"):
        _row = "reply cut at each call" if _moment == "reply cut" else "connection reset at each call"
        fault(f"reset at {_call}: {_moment}", _row, seconds=1.5, spare=True)(partial(strike, _call, _moment, "reset"))
