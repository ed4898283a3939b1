"""Every fault, by theme. To add one: write a function in a module here and import the module below."""

from tests.chaos.fault import REGISTER
from tests.chaos.faults import boundaries, clock, freezes, kills, network, overload, redis

__all__ = ["REGISTER", "boundaries", "clock", "freezes", "kills", "network", "overload", "redis"]
