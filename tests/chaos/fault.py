"""What a fault is, and the register of all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.world import World

Strike = Callable[[World], float]
"""Injects a fault and ends it. Returns from when healing counts: the end of the fault, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break things."""

    name: str
    row: str
    """The line of the table in which it is counted, together with its variants."""
    strike: Strike
    quick: bool = True
    """Whether it is short enough for the quick run."""
    seconds: float = 2.0
    """How long it and its healing take, about."""
    spare: bool = False
    """Whether it comes last, and may be left out when time is short."""
    missing: str | None = None
    """What has to be installed before it can be injected."""


REGISTER: list[Fault] = []


def fault(
    name: str,
    row: str | None = None,
    *,
    quick: bool = True,
    seconds: float = 2.0,
    spare: bool = False,
    missing: str | None = None,
) -> Callable[[Strike], Strike]:
    """Registers a function as a fault."""

    def register(strike: Strike) -> Strike:
        REGISTER.append(Fault(name, row or name, strike, quick, seconds, spare, missing))
        return strike

    return register
