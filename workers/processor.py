"""One event: run its handlers and say how the attempt ended."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable
from contextvars import copy_context
from time import monotonic
from typing import Any

import orjson
import structlog
from redis.exceptions import ConnectionError, RedisError, TimeoutError  # noqa: A004

from app.errors import describe
from app.inbox.inbox import Inbox
from app.inbox.record import Ended, Record
from workers.event import Event, LeaseLost
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn
from workers.registry import Handler, Registry
from workers.resources import Resources
from workers.retry import RetryAfter, Verdict, judge
from workers.steps import Step, running
from workers.timelimit import HandlerTimeout, time_limit

MAX_MESSAGE = 1000
MAX_TRACEBACK = 8000
"""Characters kept of an error; of a traceback the end, where the cause is."""

log = structlog.stdlib.get_logger(__name__)


class NotBegun(RetryAfter):
    """No handler has run, because Redis went away or the lease ran out before: no attempt is used up."""

    counts = False

    def __init__(self, cause: Exception) -> None:
        super().__init__(0)
        self.__cause__ = cause


class Processor:
    """Runs handlers, one event at a time. For the main thread of a process: timeouts are signals."""

    def __init__(self, inbox: Inbox, registry: Registry) -> None:
        self._inbox = inbox
        self._registry = registry
        self._timeout = inbox.settings.handler_timeout
        self._max_attempts = inbox.settings.max_attempts
        self._resources = Resources(inbox)
        # Only then is there a cache to keep true.
        self._uses_api = any(need in {JobsiteOn, AsyncJobsiteOn} for h in registry.handlers for need in h.needs)
        self._runner: asyncio.Runner | None = None

    def process(self, record: Record) -> Ended | None:
        """Runs what is left to run of an event's handlers. Never raises what a handler raised.

        None if the event has to wait for its turn: it is given back already.
        """
        handlers = self._registry.matching(record.type)
        begun = monotonic()
        errors: list[BaseException]
        try:
            if not self._take_turn(record, handlers):
                return None
            with time_limit(self._timeout):
                errors = self._run(record, handlers)
        except HandlerTimeout as timeout:
            self._inbox.redis.connection_pool.disconnect()  # it may have struck between a command and its reply
            errors = [timeout]
        except (ConnectionError, TimeoutError) as error:
            errors = [NotBegun(error)]
        except RedisError as error:
            errors = [error]
        verdict = judge(errors, record.attempt, self._max_attempts)
        elapsed = monotonic() - begun
        _log(record, verdict, elapsed, len(handlers))
        return Ended(
            id=record.id,
            token=record.token,
            outcome=verdict.outcome,
            attempt=_history(record, verdict, elapsed, len(handlers)),
            delay=verdict.delay,
            unhandled=not handlers,
            uncounted=verdict.uncounted,
            resource=(record.resource or "") if record.occurred_at else "",
            occurred_at=record.occurred_at or 0.0,
        )

    def close(self) -> None:
        """Ends the event loop of async handlers, if there was any."""
        if self._runner:
            self._runner.close()
            self._runner = None

    def _take_turn(self, record: Record, handlers: list[Handler]) -> bool:
        if not record.resource or not any(handler.one_at_a_time for handler in handlers):
            return True
        if self._inbox.take_turn(record.id, record.token, record.resource):
            return True
        log.debug("waits for its turn", id=record.id, type=record.type)
        return False

    def _run(self, record: Record, handlers: list[Handler]) -> list[BaseException]:
        """The errors, after every handler has had its turn."""
        # Whoever stood still since taking the event may be overtaken before the timeout, which counts from here.
        if monotonic() + self._timeout > record.leased_until:
            return [NotBegun(LeaseLost(f"Too little was left of the lease of event {record.id} to begin it."))]
        try:
            if self._uses_api:
                self._resources.forget(record)
            return self._run_each(record, handlers)
        except HandlerTimeout:
            raise
        except Exception as error:  # noqa: BLE001 - our own trouble, as with Redis, is one more reason to retry
            return [error]

    def _run_each(self, record: Record, handlers: list[Handler]) -> list[BaseException]:
        finished = {name for name, _ in record.steps}
        left = [handler for handler in handlers if _step(handler) not in finished]
        errors: list[BaseException] = []
        for handler in left:
            try:
                self._call(handler, Event(record, self._inbox, handler.name))
            except HandlerTimeout:
                raise
            except LeaseLost as lost:
                return [lost]  # the others are the new owner's to run
            except BaseException as error:  # noqa: BLE001 - a handler's sys.exit() is its failure, not ours
                errors.append(error)
            else:
                # The last one's success is recorded with the end of the attempt.
                if (handler is not left[-1] or errors) and not self._inbox.record_step(
                    record.id, record.token, _step(handler), b"null"
                ):
                    return [LeaseLost(f"Another worker has event {record.id} by now.")]
        return errors

    def _call(self, handler: Handler, event: Event) -> None:
        needs = [self._resources(need) for need in handler.needs]
        with running(Step(event.id, _step(handler))):
            result = handler.function(event, *needs)
            if not inspect.isawaitable(result):
                return
            self._runner = self._runner or asyncio.Runner()
            try:
                self._runner.run(_wait_for(result), context=copy_context())
            except HandlerTimeout:
                self._runner = None  # its loop was interrupted anywhere: not to be used again
                raise


_LEVELS = {"done": logging.INFO, "retry": logging.WARNING, "dead": logging.ERROR}


def _log(record: Record, verdict: Verdict, elapsed: float, handlers: int) -> None:
    more: dict[str, Any] = describe(verdict.error) if verdict.error else {}
    if verdict.outcome == "retry":
        more["retry_in_s"] = round(verdict.delay, 1)
    log.log(
        _LEVELS[verdict.outcome],
        "attempt",
        outcome=verdict.outcome,
        id=record.id,
        type=record.type,
        attempt=record.attempt,
        handlers=handlers,
        ms=round(elapsed * 1000, 1),
        **more,
    )


async def _wait_for(awaitable: Awaitable[None]) -> None:
    await awaitable


def _step(handler: Handler) -> str:
    return f"handler {handler.name}"


def _history(record: Record, verdict: Verdict, elapsed: float, handlers: int) -> bytes:
    started = round((record.started or 0) * 1000)
    entry: dict[str, Any] = {
        "attempt": record.attempt,
        "started": started,
        "ended": started + round(elapsed * 1000),
        "worker": record.worker,
        "outcome": verdict.outcome,
        "handlers": handlers,
    }
    if (error := verdict.error) is not None:
        lines = "".join(traceback.format_exception(error))
        entry["error"] = {
            "type": f"{type(error).__module__}.{type(error).__qualname__}",
            "message": _text(_message(error)[:MAX_MESSAGE]),
            "traceback": _text(lines[-MAX_TRACEBACK:]),
        }
    return orjson.dumps(entry)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - even that a handler's exception may get wrong
        return "(its message cannot be shown)"


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates are not JSON
