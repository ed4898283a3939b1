"""One handler on one event, outside of any worker: for tests of handlers, and for `jobhook run`.

The handler, its steps and its event are the real ones; the inbox is this process's memory, and ends with it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import time
from typing import Any, cast

import orjson

from app.config.settings import Settings
from app.delivery.envelope import Paths, Reader
from app.delivery.identity import identify
from app.delivery.payload import read_payload
from app.inbox.handlers import wanted
from app.inbox.inbox import Inbox
from app.inbox.record import HANDLER_STEP, STEP_OF, Record
from workers.event import Event
from workers.processor import Processor
from workers.registry import Handler, Registry, registry
from workers.signature import needs, refuse_what_would_not_run

ANYTHING = "*"


class Memory:
    """What handlers have of an inbox, for one event."""

    def __init__(self, record: Record, settings: Settings, latest: Callable[[str, str, float], float]) -> None:
        self.record = record
        self.settings = settings
        self.latest = latest
        """As `Inbox.latest`."""
        self.steps: dict[str, Any] = dict(record.steps)
        """What has been finished, with its result, as a record has it."""
        self.failures: dict[str, int] = {}
        """How often each handler has failed."""

    def record_step(self, _: str, __: int, step: str, result: bytes) -> bool:
        """As `Inbox.record_step`."""
        self.steps[step] = orjson.loads(result)
        return True

    def event(self, handler: str) -> Event:
        """The event as a handler gets it now."""
        record = replace(self.record, steps=tuple(self.steps.items()))
        return Event(record, cast(Inbox, self), handler, self.failures.get(handler, 0) + 1)

    def steps_of(self, handler: str) -> dict[str, Any]:
        """The results of a handler's finished steps, by their names."""
        prefix = handler + STEP_OF
        return {step.removeprefix(prefix): result for step, result in self.steps.items() if step.startswith(prefix)}

    def has_finished(self, handler: str) -> bool:
        """Whether a handler has finished the event."""
        return HANDLER_STEP + handler in self.steps

    def run(self, handler: Handler) -> None:
        """One attempt of a handler.

        Raises:
            BaseException: what the handler has raised.
        """
        processor = Processor(cast(Inbox, self), Registry())
        try:
            processor.call(handler, self.event(handler.name))
        except BaseException:
            self.failures[handler.name] = self.failures.get(handler.name, 0) + 1
            raise
        finally:
            processor.close()
        self.steps[HANDLER_STEP + handler.name] = None


def received(body: bytes, paths: Paths = Paths()) -> Record:  # noqa: B008 - immutable
    """The record of an event that has just been delivered with this body."""
    reader, payload = Reader(paths), read_payload(body)
    envelope = reader.read(payload.value)
    id = identify(body, payload, envelope, reader.former_event_id(payload.value, envelope)).id
    now = time()
    return Record(id, "running", now, body, envelope._asdict(), token=1, attempt=1, started=now)


def handler_of(function: Callable[..., Any], given: dict[str, Any]) -> Handler:
    """A function as a handler that is given these arguments, by name, besides the event.

    Raises:
        TypeError: it needs others too, or does not take one of them.
        ConfigError: it could not be a handler.
    """
    name = next((handler.name for handler in registry.handlers if handler.function == function), None)
    if name is None:
        name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    refuse_what_would_not_run(name, function)
    bound = partial(function, **given) if given else function
    if missing := [need.parameter for need in needs(name, bound)]:
        raise TypeError(f"{name} needs {', '.join(missing)}: run(…, {', '.join(f'{each}=…' for each in missing)})")
    return Handler(name, bound, wanted(ANYTHING), ANYTHING)
