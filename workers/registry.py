"""Which handlers want which events: a decorator, a look-up, nothing more."""

import importlib
import pkgutil
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import TypeVar

from app.errors import ConfigError
from workers.event import Event

Function = Callable[[Event], None] | Callable[[Event], Awaitable[None]]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and the events it wants."""

    name: str
    """Module and function: under this name its success is recorded, so renaming it runs it again."""
    function: Function
    pattern: re.Pattern[str]


@dataclass
class Registry:
    """The handlers of this process, in the order in which they were registered."""

    handlers: list[Handler] = field(default_factory=list)

    def on(self, pattern: str) -> Callable[[F], F]:
        """Registers the decorated function for events whose type matches, case aside.

        `*` stands for anything, `?` for any character, `[ab]` for one of them: `on("invoice.paid")`,
        `on("invoice.*")`, `on("*")`. A function may be registered for several patterns; it still runs
        once per event.

        Raises:
            ConfigError: another function of the same module and name is registered already.
        """

        def register(function: F) -> F:
            name = f"{function.__module__}.{function.__qualname__}"
            if any(handler.name == name and handler.function is not function for handler in self.handlers):
                raise ConfigError(f"Two handlers are named {name}: their success could not be told apart.")
            self.handlers.append(Handler(name, function, re.compile(translate(pattern.casefold()))))
            return function

        return register

    def matching(self, type: str) -> list[Handler]:
        """The handlers that want events of this type, each once."""
        folded = type.casefold()
        return list({h.name: h for h in self.handlers if h.pattern.match(folded)}.values())


registry = Registry()
on = registry.on


def load(modules: Iterable[str]) -> Registry:
    """Imports the modules (of a package, all that it holds) and returns the registry they filled.

    Raises:
        ConfigError: a module cannot be imported.
    """
    for name in modules:
        try:
            module = importlib.import_module(name)
            for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
                importlib.import_module(info.name)
        except Exception as error:
            raise ConfigError(f"JOBHOOK_HANDLERS: {name} cannot be imported: {error!r}") from error
    return registry
