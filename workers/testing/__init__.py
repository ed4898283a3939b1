"""For tests of handlers, in any test runner and without a server: `from workers.testing import event, run`.

A handler runs as in a worker: with real steps, each of which runs once, and as a coroutine if it is one. What it does
to other systems it does: give it doubles of those. A pytest fixture is in `workers.testing.fixtures`.
"""

from collections.abc import Callable, Mapping
from math import inf
from typing import Any

import orjson
from pydantic import SecretStr

from app.config.settings import Settings
from app.delivery.samples import DEFAULT_TYPE, sample
from workers.alone import Memory, handler_of, received
from workers.event import Event

_KEY = "key-of-the-tests-of-handlers"

__all__ = ["event", "run"]


def event(
    type: str = DEFAULT_TYPE,
    data: Mapping[str, Any] | None = None,
    *,
    body: bytes | None = None,
    superseded: bool = False,
) -> Event:
    """An event as a handler gets it: a sample of this type, with this business object in place of the sample's.

    Each is another event. With `body`, what is delivered are these bytes; the type is what can be read of them.
    `superseded` makes it older than one of the same resource that the handler has finished.

    Raises:
        ValueError: it cannot be superseded, because no resource or time can be read of it.
    """
    if body is None:
        body = sample(type)
        if data is not None:
            body = orjson.dumps(orjson.loads(body) | {"data": dict(data)})
    record = received(body)
    if superseded and (record.resource is None or record.position is None):
        raise ValueError("It cannot be superseded: it tells no resource or no time.")
    latest = inf if superseded else 0.0
    memory = Memory(record, Settings(api_key=SecretStr(_KEY)), lambda *_: latest)
    return memory.event("")


def run(handler: Callable[..., Any], event: Event, **given: Any) -> dict[str, Any]:
    """Runs a handler on an event once, as an attempt of a worker. Returns the results of its finished steps, by name.

    Again with the same event it is a retry: steps that have finished do not run again, and a handler that has
    finished not at all. `given` is what it asks for besides the event, by the names of its parameters.

    Raises:
        BaseException: whatever the handler raises.
        TypeError: the event is not of `workers.testing.event`, or the handler asks for more than is given.
    """
    memory: Any = event._inbox
    if not isinstance(memory, Memory):
        raise TypeError("Make the event with workers.testing.event(…).")
    ready = handler_of(handler, given)
    if not memory.has_finished(ready.name):
        memory.run(ready)
    return memory.steps_of(ready.name)
