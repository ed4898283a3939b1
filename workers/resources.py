"""What the worker gives to handlers that ask for it by annotation: one of each a process."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from workers.event import Event
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn
from workers.registry import Handler

MAKERS: dict[type, Callable[[Settings], Any]] = {JobsiteOn: JobsiteOn, AsyncJobsiteOn: AsyncJobsiteOn}
"""What handlers can be given, and how it is made."""


def refuse_unknown_needs(handlers: Iterable[Handler]) -> None:
    """Refuses handlers that ask for something else, before they get an event.

    Raises:
        ConfigError: one does.
    """
    for handler in handlers:
        for need in handler.needs:
            if need.type is Event:
                raise ConfigError(f"Handler {handler.name}: the event comes first. Is it a method? Use a function.")
            if not any(need.type is known for known in MAKERS):
                known = ", ".join(sorted(known.__name__ for known in MAKERS))
                raise ConfigError(
                    f"Handler {handler.name}: {need.parameter!r} is annotated {need.type!r}. "
                    f"What a handler can be given: {known}. A parameter of its own needs a default."
                )


class Resources:
    """Makes each resource when it is first asked for."""

    def __init__(self, inbox: Inbox) -> None:
        self._settings = inbox.settings
        self._made: dict[type, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, need: type) -> Any:
        """The resource of a type in `MAKERS`."""
        if need not in self._made:
            with self._lock:
                self._made[need] = MAKERS[need](self._settings)
        return self._made[need]

    def use(self, settings: Settings) -> None:
        """Goes on with the keys of other settings: also what is made already, and in a handler's hands. Thread-safe.

        Raises:
            ConfigError: a key cannot be used. Those before stay.
        """
        with self._lock:
            for made in self._made.values():
                made.use(settings)
            self._settings = settings

    def forget(self, record: Record) -> None:
        """An event about a resource makes what is cached of it stale."""
        entity, _, id = (record.resource or "").partition("/")
        if id:
            self(JobsiteOn).invalidate(entity, id)
