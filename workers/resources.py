"""What the worker gives to handlers that ask for it by annotation: one of each a process."""

from collections.abc import Callable
from typing import Any

from app.errors import ConfigError
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn


class Resources:
    """Makes each resource when it is first asked for."""

    def __init__(self, inbox: Inbox) -> None:
        self._made: dict[type, Any] = {}
        self._makers: dict[type, Callable[[], Any]] = {
            JobsiteOn: lambda: JobsiteOn(inbox.settings),
            AsyncJobsiteOn: lambda: AsyncJobsiteOn(inbox.settings),
        }

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

    def forget(self, record: Record) -> None:
        """An event about a resource makes what is cached of it stale."""
        entity, _, id = (record.resource or "").partition("/")
        if id:
            self(JobsiteOn).invalidate(entity, id)
