"""A pytest fixture. In `conftest.py`: `from workers.testing.fixtures import deliver`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.delivery.samples import DEFAULT_TYPE
from workers.event import Event
from workers.registry import registry
from workers.testing import event, run

Deliver = Callable[..., Event]


@pytest.fixture
def deliver() -> Deliver:
    """Runs all registered handlers that want an event, and returns the event: `deliver("invoice.paid", {…})`.

    Given the event again, it is a retry. All of them have their turn; an error is raised after that, several as a
    group. Which modules hold handlers the test says by importing them. That none wants the event fails the test.
    """

    def deliver_event(type: str | Event = DEFAULT_TYPE, data: Mapping[str, Any] | None = None, **given: Any) -> Event:
        delivered = type if isinstance(type, Event) else event(type, data)
        wanting = registry.matching(delivered.type)
        if not wanting:
            raise LookupError(f"No handler that is registered wants {delivered.type}.")
        failed: list[Exception] = []
        for handler in wanting:
            taken = {
                name: value for name, value in given.items() if name in inspect.signature(handler.function).parameters
            }
            try:
                run(handler.function, delivered, **taken)
            except Exception as error:  # noqa: BLE001 - it is raised again
                failed.append(error)
        if len(failed) > 1:
            raise ExceptionGroup("Several handlers have failed", failed)
        if failed:
            raise failed[0]
        return delivered

    return deliver_event
