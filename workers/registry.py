"""Which handlers want which events: a decorator, a look-up, nothing more."""

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from fnmatch import translate
from typing import Literal, TypeVar

from app.errors import ConfigError

Function = Callable[..., None] | Callable[..., Awaitable[None]]
F = TypeVar("F", bound=Function)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and the events it wants."""

    name: str
    """Module and function: under this name its success is recorded, so renaming it runs it again."""
    function: Function
    pattern: re.Pattern[str]
    one_at_a_time: bool = False
    """Whether the events of one resource must not run at the same time."""
    needs: tuple[type, ...] = ()
    """The annotations of its parameters after the event: what the worker has to give it."""


@dataclass
class Registry:
    """The handlers of this process, in the order in which they were registered."""

    handlers: list[Handler] = field(default_factory=list)

    def on(self, pattern: str, *, one_at_a_time: Literal["resource"] | None = None) -> Callable[[F], F]:
        """Registers the decorated function for events whose type matches, case aside.

        `*` stands for anything, `?` for any character, `[ab]` for one of them: `on("invoice.paid")`,
        `on("invoice.*")`, `on("*")`. A function may be registered for several patterns; it still runs
        once per event. With `one_at_a_time="resource"`, two events of the same invoice, job, … do not
        run at the same time, while others do; who waits does not occupy a worker.

        Raises:
            ConfigError: another function of the same module and name is registered already.
        """

        def register(function: F) -> F:
            name = f"{function.__module__}.{function.__qualname__}"
            self.add(name, function, pattern, one_at_a_time=one_at_a_time is not None)
            return function

        return register

    def add(self, name: str, function: Function, pattern: str, *, one_at_a_time: bool = False) -> None:
        """Registers a function under a name of its own.

        Raises:
            ConfigError: another function has that name, or it is not clear what the function wants.
        """
        if any(handler.name == name and handler.function is not function for handler in self.handlers):
            raise ConfigError(f"Two handlers are named {name}: their success could not be told apart.")
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
        if not parameters:
            raise ConfigError(f"Handler {name} has to take the event.")
        for parameter in parameters[1:]:
            if parameter.annotation is inspect.Parameter.empty:
                raise ConfigError(f"Handler {name}: say by an annotation what {parameter.name!r} is, as JobsiteOn.")
        needs = tuple(parameter.annotation for parameter in parameters[1:])
        wanted = re.compile(translate(pattern.casefold()))
        self.handlers.append(Handler(name, function, wanted, one_at_a_time, needs))

    def matching(self, type: str) -> list[Handler]:
        """The handlers that want events of this type, each once."""
        folded = type.casefold()
        matching = [handler for handler in self.handlers if handler.pattern.match(folded)]
        serial = {handler.name for handler in matching if handler.one_at_a_time}
        return list({h.name: replace(h, one_at_a_time=h.name in serial) for h in matching}.values())


registry = Registry()
on = registry.on
