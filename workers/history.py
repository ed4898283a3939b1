"""What is told of an attempt: a line in its event's history, and one in the log."""

import logging
from typing import Any

import orjson
import structlog

from app.errors import describe
from app.inbox.record import Record
from workers import frames
from workers.progress import Failure, HandlerPaused, Settled
from workers.retry import leaves
from workers.wording import MAX_TRACEBACK, message, text, trace

MOST_TRACEBACKS = 4 * MAX_TRACEBACK
"""Characters of all tracebacks of an attempt together, whole and short: they are kept as long as the event."""
_LEVELS = {"done": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}

log = structlog.stdlib.get_logger(__name__)


def line(record: Record, settled: Settled, elapsed: float, handlers: int) -> bytes:
    """The attempt in the event's history, as JSON. `error` is the first failure, `errors` has all of them.

    With each are the frames of the handler's own code (`own`) and the whole traceback, as far as there is room;
    those of the first stand in `error`, where versions look that know of one alone.
    """
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
        room = min(MAX_TRACEBACK, MOST_TRACEBACKS // (2 * len(settled.failures)))
        first, *others = settled.failures
        entry["error"] = _told(first) | _traced(first.error, room)
        entry["errors"] = [_told(first), *(_told(other) | _traced(other.error, room) for other in others)]
    return orjson.dumps(entry)


def tell(record: Record, settled: Settled, elapsed: float, handlers: int) -> None:
    """Logs the attempt. No message of an error: it may quote a payload (P7)."""
    more: dict[str, Any] = {}
    if settled.failures:
        first, *others = settled.failures
        more |= _logged(first)
        if others:
            more["others"] = [_logged(other) for other in others]
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


def _logged(failure: Failure) -> dict[str, str]:
    """Its handler (of a destination, that is `forward …`), its type, and where in the handler's own code it arose."""
    logged = describe(failure.error) | {"handler": failure.handler}
    if where := frames.place(leaves(failure.error)[0]):
        logged["where"] = where
    return logged


def _traced(error: BaseException, room: int) -> dict[str, str]:
    traced = {"traceback": trace(error, room)}
    if own := text(frames.short(leaves(error))[-room:]):
        traced["own"] = own
    return traced


def _told(failure: Failure) -> dict[str, str]:
    kind = type(failure.error)
    told = {
        "handler": failure.handler,
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": message(failure.error),
    }
    return told | ({"given_up": failure.given_up} if failure.given_up else {})
