"""What the worker gives to handlers that ask for it by annotation: one of each a process."""

from collections.abc import Callable
from typing import Any

from app.errors import ConfigError
from app.inbox import Inbox


class Resources:
    """Makes each resource when it is first asked for."""

    def __init__(self, inbox: Inbox) -> None:
        self._made: dict[type, Any] = {}
        self._makers: dict[type, Callable[[], Any]] = {Inbox: lambda: inbox}

    def __call__(self, need: type) -> Any:
        """The resource of a type.

        Raises:
            ConfigError: there is none.
        """
        if need not in self._made:
            if need not in self._makers:
                known = ", ".join(sorted(known.__name__ for known in self._makers))
                raise ConfigError(f"A handler asks for {need!r}. What it can be given: {known}.")
            self._made[need] = self._makers[need]()
        return self._made[need]
