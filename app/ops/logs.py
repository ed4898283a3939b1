"""Logs: JSON lines in production, readable lines on a terminal; one line a delivery, one an attempt.

Writing a line never blocks and never fails, nor does what handlers print (`app/ops/streams.py`); that becomes log
lines too, and like all lines of a handler they carry the id of its event (`app/ops/printed.py`).

No line carries a key, a signature or any part of a payload (P7). The loggers of uvicorn, RQ and
handlers are brought into the same form.
"""

import json
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from io import TextIOWrapper
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.types import EventDict, Processor

from app.config.settings import Settings
from app.errors import describe
from app.ops import printed, streams

_EVENT_WIDTH = 10
"""Columns for what happened, on a terminal."""

handling: ContextVar[tuple[str, str] | None] = ContextVar("handling", default=None)
"""The id of the event that is being handled, and the handler's name: log lines carry them."""


def configure(settings: Settings) -> None:
    """Sets up logging for this process, to standard output, and sees that what is printed never blocks."""
    streams.guard()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())
    if as_json and isinstance(sys.stdout, TextIOWrapper):
        # As JSON has to be (RFC 8259), whatever a terminal here would show.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    render: list[Processor] = [_as_json] if as_json else _as_text()
    streams.announce_by(partial(_dropped, render))
    structlog.configure(
        processors=render,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Output())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast(TextIO, _Output()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in ("rq.worker", "rq.job", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def warn(notes: Iterable[str]) -> None:
    """A warning for each note on the settings."""
    for note in notes:
        structlog.get_logger("app.config").warning("setting", note=note)


class _Output:
    """Whatever is standard output now. A handler may have put something else in its place, which may fail."""

    def write(self, line: str) -> None:
        with suppress(OSError, ValueError):
            printed.beneath(sys.stdout).write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            printed.beneath(sys.stdout).flush()


def take_prints() -> None:
    """What this process prints becomes log lines, whatever the level: it was written to be seen."""
    render = structlog.get_config()["processors"]
    printed.take(lambda text, stream: _rendered(render, "info", {"event": text, "printed": stream}))


def _dropped(render: list[Processor], lines: int) -> str:
    return _rendered(render, "warning", {"event": "log lines dropped", "lines": lines})


def _rendered(render: list[Processor], level: str, line: Any) -> str:
    for processor in render:
        line = processor(None, level, line)
    return str(line)


def _as_text() -> list[Processor]:
    """For people, on a terminal."""
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _describe_exception,
        _name_event,
        structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=_EVENT_WIDTH),
    ]


def _as_json(logger: Any, level: str, event: EventDict) -> str:
    """For machines; all in one step, because it is on the way of every delivery."""
    event = _name_event(logger, level, _describe_exception(logger, level, event))
    event["level"] = level
    event["timestamp"] = datetime.now(UTC)
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # a lone surrogate, a huge integer: a log line is no reason to fail
        return json.dumps(event, default=str)


def _name_event(_: Any, __: str, event: EventDict) -> EventDict:
    """Adds what is being handled. An `id` of the handler's own stays; the event's is the `event_id` then."""
    if handled := handling.get():
        id, handler = handled
        if event.setdefault("id", id) != id:
            event["event_id"] = id
        event.setdefault("handler", handler)
    return event


def _describe_exception(_: Any, __: str, event: EventDict) -> EventDict:
    """A traceback becomes the error's type and place: messages may quote payloads."""
    if exc_info := event.pop("exc_info", None):
        error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
        error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        if error:
            event.update(describe(error))
    return event
