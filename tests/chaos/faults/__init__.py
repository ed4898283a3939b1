"""Every fault, by theme. To add one: write a function in a module here, or a module and name it below."""

from importlib import import_module

from tests.chaos.fault import REGISTER

THEMES = (
    "kills",
    "boundaries",
    "freezes",
    "workers",
    "redis",
    "network",
    "clock",
    "overload",
    "logs",
    "alerts",
    "failover",
)
"""In the order of the table."""

for _theme in THEMES:
    import_module(f"{__name__}.{_theme}")

__all__ = ["REGISTER", "THEMES"]
