"""What is told of an attempt: a line in its event's history, and one in the log."""

import logging
from typing import Any

import orjson
import structlog

from app.errors import describe
from app.inbox.record import Record
from workers.progress import Failure, HandlerPaused, Settled
from workers.wording import message, trace

_LEVELS = {"done": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}

log = structlog.stdlib.get_logger(__name__)


def line(record: Record, settled: Settled, elapsed: float, handlers: int) -> bytes:
    """The attempt in the event's history, as JSON. `error` is the first failure, `errors` has all of them."""
    started = round((record.started or 0) * 1000)
    entry: dict[str, Any] = {
        "attempt": record.attempt,
        "started": started,
        "ended": started + round(elapsed * 1000),
        "worker": record.worker,
        "outcome": settled.outcome,
        "handlers": handlers,
    }
    if settled.failures:
        entry["error"] = _told(settled.failures[0]) | {"traceback": trace(settled.failures[0].error)}
        entry["errors"] = [_told(failure) for failure in settled.failures]
    return orjson.dumps(entry)


def tell(record: Record, settled: Settled, elapsed: float, handlers: int) -> None:
    """Logs the attempt. No message of an error: it may quote a payload (P7)."""
    more: dict[str, Any] = {}
    if settled.failures:
        first = settled.failures[0]
        more = describe(first.error) | {"handler": first.handler}
    if reasons := [failure.given_up for failure in settled.failures if failure.given_up]:
        more["given_up"] = "; ".join(dict.fromkeys(reasons))
    if settled.outcome == "retry":
        more["retry_in_s"] = round(settled.delay, 1)
    only_paused = settled.only_waited and all(isinstance(one.error, HandlerPaused) for one in settled.failures)
    log.log(
        logging.INFO if only_paused else _LEVELS[settled.outcome],
        "attempt",
        outcome=settled.outcome,
        id=record.id,
        type=record.type,
        attempt=record.attempt,
        handlers=handlers,
        ms=round(elapsed * 1000, 1),
        **more,
    )


def _told(failure: Failure) -> dict[str, str]:
    kind = type(failure.error)
    told = {
        "handler": failure.handler,
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": message(failure.error),
    }
    return told | ({"given_up": failure.given_up} if failure.given_up else {})
