"""What goes wrong in and around the workers, without anybody killing them at a moment of his choice."""

import os
from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.processes import is_alive, kill, parent
from tests.chaos.world import World
from tests.support import wait_until
from tests.support.processes import family

NO_FORK_SECONDS = 2
UNTIDY_EVENTS = 4
FULL_SECONDS = 3
MEMORY_LEFT_BYTES = 4096


@fault("worker: killed while fork fails", seconds=4)
def let_fork_fail(world: World) -> float:
    """As with a limit on the number of processes. The other workers go on."""
    world.order.write_text("fork")
    kill(world.ledger, world.busy_worker(), "kill -9")
    world.pause(NO_FORK_SECONDS)
    world.order.unlink()
    return monotonic()


@fault("workers started while Redis is full", seconds=5)
def start_while_full(world: World) -> float:
    """They are what makes room."""
    redis = world.stack.redis
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + MEMORY_LEFT_BYTES)
    for supervisor in world.supervisors:
        kill(world.ledger, supervisor.pid, "kill -9")
    world.pause(1 if world.quick else FULL_SECONDS)
    redis.config_set("maxmemory", 0)
    return monotonic()


@fault("worker: killed with what its handlers have left behind", seconds=4)
def kill_untidy_worker(world: World) -> float:
    """Processes and threads: with the worker all of them end."""
    bodies = [world.sender.body("chaos.untidy") for _ in range(UNTIDY_EVENTS)]
    for body in bodies:
        world.run(world.sender.deliver(body, 0))
    untidy = wait_until(lambda: [pid for pid in world.workers() if "sleep" in _command(pid)], "what is left behind")
    worker = parent(untidy[0])
    left = list(family(worker))
    kill(world.ledger, worker, "kill -9")
    try:
        wait_until(lambda: not any(is_alive(pid) for pid in left), "it to end", patience=10)
    except AssertionError:
        world.ledger.complaints.append("what the handlers of a killed worker had started lives on")
    return monotonic()


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


def _strike_index(world: World, name: str, *, spoil: bool) -> float:
    key = name if ":" in name else f"jobhook:{name}"
    with world.stack.redis.pipeline() as pipeline:
        pipeline.delete(key)
        if spoil:
            pipeline.set(key, f"spoiled by {os.getpid()}")
        pipeline.execute()
    return monotonic()


def _register(name: str, *, spoil: bool) -> None:
    what = "of the wrong type" if spoil else "deleted"
    fault(f"Redis: {name} {what}", f"an index {what}", seconds=3)(lambda world: _strike_index(world, name, spoil=spoil))


for _name in ("open", "queued", "running", "retrying", "rq:queue:jobhook"):
    for _spoil in (False, True):
        _register(_name, spoil=_spoil)
