"""What a fault is, and the register of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.chaos.world import World

W = TypeVar("W", bound=World)
Strike = Callable[[W], float]
"""Injects a fault and ends it. Returns from when healing counts: the end of the fault, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break things."""

    name: str
    row: str
    """The line of the table in which it is counted, together with its variants."""
    strike: Strike[Any]
    quick: bool = True
    """Whether it is short enough for the quick run."""
    seconds: float = 2.0
    """How long it and its healing take, about."""
    spare: bool = False
    """Whether it comes last, and may be left out when time is short."""
    missing: str | None = None
    """What has to be installed before it can be injected."""
    world: type[World] = World
    """What it strikes."""


REGISTER: list[Fault] = []


def fault(
    name: str,
    row: str | None = None,
    *,
    quick: bool = True,
    seconds: float = 2.0,
    spare: bool = False,
    missing: str | None = None,
    world: type[World] = World,
) -> Callable[[Strike[W]], Strike[W]]:
    """Registers a function as a fault."""

    def register(strike: Strike[W]) -> Strike[W]:
        REGISTER.append(Fault(name, row or name, strike, quick, seconds, spare, missing, world))
        return strike

    return register
