"""Handlers that do what handlers do: succeed, fail, hang, crash. Each notes its effect in Redis."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache

import structlog
from redis import Redis

from app.store.connections import connect
from workers import Permanent, RetryAfter, on
from workers.event import Event

REDIS_SECONDS = 5.0
GO_SECONDS = 60


@cache
def redis() -> "Redis":
    return connect(os.environ["REDIS_URL"], timeout=REDIS_SECONDS)


def note(event: Event, what: str) -> None:
    redis().rpush(f"effects:{event.id}", what)


@on("test.*")
def begin(event: Event) -> None:
    if event.type.startswith("test.two"):
        note(event, "first")


@on("test.ok")
def succeed(event: Event) -> None:
    note(event, f"ok {event.attempt}")


@on("test.print")
def print_much(event: Event) -> None:
    """More than a pipe holds, and what ASCII has no letters for."""
    for number in range(2000):
        print(f"{number}: {'é' * 100}", flush=True)  # noqa: T201 - as handlers do
        print(f"{number}: {'é' * 100}", file=sys.stderr)  # noqa: T201
    note(event, "printed")


@on("test.tell")
def tell(event: Event) -> None:
    logging.getLogger("of a handler").warning("logged")
    structlog.get_logger().warning("logged by structlog", id="its own")
    print("printed")  # noqa: T201 - as handlers do
    print("begun", end="")  # noqa: T201
    note(event, "told")


@on("test.async")
async def succeed_async(event: Event) -> None:
    await asyncio.sleep(0)
    note(event, "async")


@on("test.fail")
@on("test.two_fail")
def fail(event: Event) -> None:
    note(event, f"fail {event.attempt}")
    raise ValueError(f"canary-message {event.data}")


@on("test.flaky")
@on("test.two_flaky")
def fail_once(event: Event) -> None:
    note(event, f"flaky {event.attempt}")
    if event.attempt == 1:
        raise RetryAfter(0)


@on("test.permanent")
def fail_for_good(event: Event) -> None:
    note(event, "permanent")
    raise Permanent("no use")


@on("test.hang")
def hang(event: Event) -> None:
    note(event, f"hang {event.attempt}")
    while True:
        with contextlib.suppress(Exception):  # what a careless handler does
            time.sleep(60)


@on("test.async_hang")
async def hang_async(event: Event) -> None:
    note(event, f"hang {event.attempt}")
    await asyncio.sleep(3600)


@on("test.stuck")
def be_stuck(event: Event) -> None:
    note(event, f"stuck {event.attempt}")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # as in an extension that never returns
    while True:
        time.sleep(3600)


@on("test.exit")
def leave(event: Event) -> None:
    note(event, f"exit {event.attempt}")
    sys.exit(3)


@on("test.hard_exit")
def leave_at_once(event: Event) -> None:
    note(event, f"hard exit {event.attempt}")
    if event.attempt == 1:
        os._exit(3)


@on("test.segfault")
def segfault(event: Event) -> None:
    note(event, f"segfault {event.attempt}")
    ctypes.string_at(0)


@on("serial.*", one_at_a_time="resource")
def watch_for_company(event: Event) -> None:
    """Notes whether another event of the resource is at work, and how many of any are."""
    resource = f"busy:{event.resource}"
    if redis().incr(resource) > 1:
        redis().incr("overlaps")
    redis().sadd("together", redis().incr("busy"))
    redis().decr("busy")
    redis().decr(resource)


@on("steps.two")
def take_two_steps(event: Event) -> None:
    for name in ("first", "second"):
        event.once(name, lambda key, name=name: redis().rpush("steps", f"{event.id} {name} {key}"))  # type: ignore[misc]


@on("test.wait")
def wait(event: Event) -> None:
    """Goes on when the test says so; the pid tells it whom to kill."""
    note(event, f"pid {os.getpid()}")
    with connect(os.environ["REDIS_URL"], timeout=GO_SECONDS + REDIS_SECONDS) as waiting:
        waiting.blpop([f"go:{event.id}"], timeout=GO_SECONDS)
    note(event, f"waited {event.attempt}")


@on("test.leftovers")
def start_something(event: Event) -> None:
    """Starts a process that outlives the handler, and notes who has started which; then goes on as `wait` does."""
    started = subprocess.Popen(["sleep", "600"])
    note(event, f"pid {os.getpid()}")
    note(event, f"started {started.pid}")
    with connect(os.environ["REDIS_URL"], timeout=GO_SECONDS + REDIS_SECONDS) as waiting:
        waiting.blpop([f"go:{event.id}"], timeout=GO_SECONDS)


@on("test.thread")
def leave_a_thread(event: Event) -> None:
    threading.Thread(target=time.sleep, args=(3600,)).start()


@on("test.quiet_exit")
def leave_quietly(event: Event) -> None:
    os._exit(0)


@on("test.grow")
def grow(event: Event) -> None:
    grown.append(b"x" * 256 * 1024**2)


grown: list[bytes] = []
