"""Logs: JSON lines in production, readable lines on a terminal; one line a delivery, one an attempt.

No line carries a key, a signature or any part of a payload (P7). The loggers of uvicorn, RQ and
handlers are brought into the same form.
"""

import json
import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.types import Processor

from app.config import Settings
from app.errors import describe

_EVENT_WIDTH = 10
"""Columns for what happened, on a terminal."""


def configure(settings: Settings) -> None:
    """Sets up logging for this process, to standard output."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stdout.isatty())
    stamp = structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json)
    shared: list[Processor] = [structlog.stdlib.add_log_level, stamp]
    render: Processor = structlog.processors.JSONRenderer(serializer=_dumps)
    if not as_json:
        render = structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=_EVENT_WIDTH)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, _describe_exception, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _describe_exception],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in ("rq.worker", "rq.job", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _dumps(value: Any, **_: Any) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # a lone surrogate, a huge integer: a log line is no reason to fail
        return json.dumps(value, default=str)


def _describe_exception(_: Any, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """A traceback becomes the error's type and place: messages may quote payloads."""
    if exc_info := event.pop("exc_info", None):
        error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
        error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        if error:
            event.update(describe(error))
    return event
