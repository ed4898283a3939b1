"""Async handlers: one event loop a worker, in which each attempt leaves nothing behind.

The loop is kept from one event to the next, because connections belong to the loop that has opened them. What
a handler has started in it belongs to its attempt all the same: tasks that it has not waited for are waited for,
and what they raise is raised; async generators are closed. When the time is up, all of it is cancelled, so that
`finally` blocks run; who does not end even then is interrupted, and the loop is given up.
"""

import asyncio
import sys
from collections.abc import Awaitable
from contextvars import copy_context
from typing import Any, cast
from weakref import WeakSet

import structlog

from app.errors import describe
from workers.timelimit import HandlerTimeout, postponed

CANCEL_SECONDS = 2.0
"""How long what is cancelled may take to end. Supervisor and lease allow for more after the timeout."""

log = structlog.stdlib.get_logger(__name__)


class Coroutines:
    """Runs awaitables to their end, one at a time."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        """Those of the attempt that run, and those whose failure nobody has looked at: kept until it ends."""

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """What it results in.

        Raises:
            BaseException: what it has raised, or a task that it has left behind; a group if there are several.
            HandlerTimeout: the time was up.
        """
        runner = self._runner = self._runner or self._new()
        try:
            with postponed(CANCEL_SECONDS) as seconds:
                result, errors = runner.run(self._attempt(awaitable, seconds), context=copy_context())
        except BaseException:  # the loop was interrupted anywhere: not to be used again
            self._give_up(runner)
            raise
        finally:
            self._tasks.clear()
        if len(errors) > 1:
            raise BaseExceptionGroup("The handler, and tasks that it has left behind", errors)
        if errors:
            raise errors[0]
        return result

    def close(self) -> None:
        """Ends the loop."""
        if self._runner:
            self._runner.close()
            self._runner = None

    def _new(self) -> asyncio.Runner:
        runner = asyncio.Runner()
        loop = runner.get_loop()
        loop.set_exception_handler(_report)
        loop.set_task_factory(self._task)
        return runner

    def _give_up(self, runner: asyncio.Runner) -> None:
        self._runner = None
        loop = runner.get_loop()
        try:
            runner.close()
        except BaseException as error:  # noqa: BLE001 - interrupted again: what runs does not end when it is cancelled
            log.error("an async handler does not end: its loop is dropped", **describe(error))
        finally:
            loop.close()  # gives its descriptors back

    def _task(self, loop: asyncio.AbstractEventLoop, coro: Any, /, **options: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        if not _is_unseen_failure(task):
            self._tasks.discard(task)

    async def _attempt(self, awaitable: Awaitable[Any], seconds: float | None) -> tuple[Any, list[BaseException]]:
        generators = _follow_generators()
        this = asyncio.current_task()
        main = asyncio.create_task(_wait_for(awaitable))
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        await asyncio.wait({main}, timeout=seconds)
        in_time = main.done()
        if in_time and not _failed(main):
            in_time = await _wait_for_rest(this, deadline)
        errors: list[BaseException] = []
        await _cancel_rest(this)
        for generator in list(generators):
            try:
                await generator.aclose()
            except BaseException as error:  # noqa: BLE001 - it is raised again
                errors.append(error)
        await _cancel_rest(this)
        result = None
        try:
            result = main.result()
        except BaseException as error:  # noqa: BLE001 - as above
            errors.insert(0, error if in_time else HandlerTimeout("The time was up: the handler was cancelled."))
        else:
            if not in_time:
                errors.insert(0, HandlerTimeout("The time was up: tasks that the handler left behind were cancelled."))
        errors += [cast(BaseException, task.exception()) for task in self._tasks if _is_unseen_failure(task)]
        return result, errors


async def _wait_for_rest(this: Any, deadline: float | None) -> bool:
    """Waits for the tasks left behind; False if they are not done in time."""
    loop = asyncio.get_running_loop()
    while rest := asyncio.all_tasks() - {this}:
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            return False
        await asyncio.wait(rest, timeout=left)
    return True


async def _cancel_rest(this: Any) -> None:
    cancelled: set[asyncio.Task[Any]] = set()
    while rest := asyncio.all_tasks() - {this}:
        for task in rest - cancelled:
            task.cancel()
        cancelled |= rest
        await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _failed(task: "asyncio.Task[Any]") -> bool:
    return task.cancelled() or task.exception() is not None


def _is_unseen_failure(task: "asyncio.Task[Any]") -> bool:
    """Whether a task has failed and nobody has asked for its exception: asyncio would complain on its deletion."""
    return task.done() and not task.cancelled() and bool(getattr(task, "_log_traceback", False))


def _follow_generators() -> "WeakSet[Any]":
    """The async generators that are begun from now on, until the loop sets the hooks of its next run."""
    generators: WeakSet[Any] = WeakSet()
    hooks = sys.get_asyncgen_hooks()

    def begun(generator: Any) -> None:
        generators.add(generator)
        if hooks.firstiter:
            hooks.firstiter(generator)

    sys.set_asyncgen_hooks(firstiter=begun)
    return generators


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of asyncio's own, which logs messages and arguments: they may quote payloads (P7)."""
    error = context.get("exception")
    log.error("error in the event loop", **(describe(error) if error else {}))
