"""Which handlers want which events: a decorator, a look-up, nothing more."""

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import structlog

from app.config.names import DEV
from app.errors import ConfigError
from app.inbox.handlers import wanted
from app.inbox.record import STEP_OF
from workers.signature import Need, needs, refuse_what_would_not_run

Function = Callable[..., None] | Callable[..., Awaitable[None]]
F = TypeVar("F", bound=Function)

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and the events it wants."""

    name: str
    """Under this name its success and its steps are recorded: under another, what is waiting runs again."""
    function: Function
    pattern: re.Pattern[str]
    wants: str = ""
    """The pattern as it was written."""
    one_at_a_time: bool = False
    """Whether the events of one resource must not run at the same time."""
    is_concurrent: bool = False
    """Whether it runs in a thread, after the others and at the same time as all that are like it. It ends by itself."""
    needs: tuple[Need, ...] = ()
    """What the worker has to give it besides the event."""
    dev_only: bool = False

    @property
    def options(self) -> str:
        """The options of its `@on`."""
        options = {'one_at_a_time="resource"': self.one_at_a_time, "dev_only=True": self.dev_only}
        return ", ".join(option for option, is_set in options.items() if is_set)


@dataclass
class Registry:
    """The handlers of this process, in the order in which they were registered."""

    handlers: list[Handler] = field(default_factory=list)
    of_the_dead: list[Handler] = field(default_factory=list)
    """Those that are run when an event has died (`on_dead`)."""

    def on(
        self,
        pattern: str = "",
        *,
        one_at_a_time: Literal["resource"] | None = None,
        name: str | None = None,
        dev_only: bool = False,
    ) -> Callable[[F], F]:
        """Registers the decorated function for events whose type matches, case aside.

        `*` stands for anything, `?` for any character, `[ab]` for one of them: `on("invoice.paid")`,
        `on("invoice.*")`, `on("*")`. A function may be registered for several patterns; it still runs
        once per event. With `one_at_a_time="resource"`, two events of the same invoice, job, … do not
        run at the same time, while others do; who waits does not occupy a worker.

        What a handler has finished is recorded under its name: by default its module and function, so that
        renaming or moving the function makes it another handler, which runs again for the events that are
        waiting. `name` is independent of both. With `dev_only`, it is registered in `jobhook dev` alone.

        Raises:
            ConfigError: the function could not be run, or would look as if it had run; the pattern or the
                name is none; or another function has the name already.
        """
        if callable(pattern):
            raise ConfigError(f'@on needs to know which events {_shown(pattern)} is for: @on("invoice.paid").')
        if not isinstance(pattern, str) or not pattern.strip():
            raise ConfigError(f'@on({pattern!r}): say which events: @on("invoice.paid"), or @on("*") for all.')
        if one_at_a_time not in {None, "resource"}:
            raise ConfigError(f'@on("{pattern}"): one_at_a_time can be "resource", not {one_at_a_time!r}.')

        def register(function: F) -> F:
            known_as = _name(function, name)
            if any(handler.function == function and handler.name != known_as for handler in self.handlers):
                raise ConfigError(f"Handler {known_as} has another name in another @on: it can have only one.")
            if dev_only and DEV not in os.environ:
                log.info("handler left out: it is for `jobhook dev` only", handler=known_as)
            else:
                self.add(known_as, function, pattern, one_at_a_time=one_at_a_time is not None, dev_only=dev_only)
            return function

        return register

    def on_dead(self, pattern: str = "*") -> Callable[[F], F]:
        """Registers the decorated function to be run when an event of such a type has died: by default, any event.

        It is given the event, whose `errors` say why it has died, and what else a handler may ask for. It runs in the
        worker, once the end of the event is recorded. Whatever it does or raises changes nothing of the event: that it
        has failed is logged. It is not tried again.

        Raises:
            ConfigError: the function could not be run, or the pattern is none.
        """
        if callable(pattern) or not isinstance(pattern, str) or not pattern.strip():
            raise ConfigError('@on_dead needs to know which events: @on_dead("invoice.*"), or @on_dead() for all.')

        def register(function: F) -> F:
            known_as = _name(function, None)
            refuse_what_would_not_run(known_as, function)
            one = Handler(known_as, function, wanted(pattern), pattern, needs=needs(known_as, function))
            self.of_the_dead.append(one)
            return function

        return register

    def for_the_dead(self, type: str) -> list[Handler]:
        """What is to be run when an event of this type has died, each once."""
        return list({one.name: one for one in self.of_the_dead if one.pattern.match(type.casefold())}.values())

    def add(
        self,
        name: str,
        function: Function,
        pattern: str,
        *,
        one_at_a_time: bool = False,
        is_concurrent: bool = False,
        dev_only: bool = False,
    ) -> None:
        """Registers a function under a name of its own.

        Raises:
            ConfigError: another function has that name, or it is not clear what the function wants.
        """
        if any(handler.name == name and handler.function != function for handler in self.handlers):
            raise ConfigError(f"Two handlers are named {name}: their success could not be told apart.")
        refuse_what_would_not_run(name, function)
        self.handlers.append(
            Handler(
                name,
                function,
                wanted(pattern),
                pattern,
                one_at_a_time,
                is_concurrent,
                needs(name, function),
                dev_only,
            )
        )

    def matching(self, type: str) -> list[Handler]:
        """The handlers that want events of this type, each once."""
        folded = type.casefold()
        matching = [handler for handler in self.handlers if handler.pattern.match(folded)]
        found: dict[str, Handler] = {}
        for handler in matching:
            if handler.name not in found or handler.one_at_a_time:
                found[handler.name] = handler
        return list(found.values())

    @property
    def names(self) -> set[str]:
        """The names of all handlers."""
        return {handler.name for handler in self.handlers}


def _name(function: Any, given: str | None) -> str:
    if given is None:
        module, function_name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        if function_name is None:  # a `partial`, or an object that can be called
            raise ConfigError(f'{_shown(function)} has no name of its own: give it one: @on(…, name="book").')
        return f"{module}.{function_name}"
    if not isinstance(given, str) or not given.isprintable() or given != given.strip() or not given:
        raise ConfigError(f"@on(…, name={given!r}): write printable text without blanks around it.")
    if STEP_OF in given:
        raise ConfigError(f"@on(…, name={given!r}): {STEP_OF!r} separates a handler from its steps.")
    return given


def _shown(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


registry = Registry()
on = registry.on
on_dead = registry.on_dead
