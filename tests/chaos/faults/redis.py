"""Redis crashed, frozen, full, forgetful."""

import resource
from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.processes import is_alive, stopped
from tests.chaos.world import World
from tests.support import wait_until

DOWN_SECONDS = 0.5
"""The longest that it stays down."""
FROZEN_SECONDS, FROZEN_SECONDS_QUICK = 10, 3
FULL_SECONDS = 3
DISK_LEFT_BYTES = 4096
MEMORY_LEFT_BYTES = 32 * 1024
EVENTS_BEFORE = 30
"""So many events are recorded with the other setting before the crash."""


@fault("Redis: kill -9, appendfsync always")
def kill_redis(world: World) -> float:
    world.server.kill()
    return _start_again(world)


@fault("Redis: kill -9, appendfsync everysec")
def kill_redis_everysec(world: World) -> float:
    """Each acknowledgement waits for the next fsync (WAITAOF)."""
    world.stack.redis.config_set("appendfsync", "everysec")
    world.stream_on(EVENTS_BEFORE)
    world.server.kill()
    return _start_again(world)


def _start_again(world: World) -> float:
    world.pause(world.random.uniform(0, DOWN_SECONDS))
    ended = monotonic()
    world.server.start()
    return ended


@fault("Redis: frozen", seconds=18)
def freeze_redis(world: World) -> float:
    with stopped(world.ledger, [world.server.pid]):
        world.pause(FROZEN_SECONDS_QUICK if world.quick else FROZEN_SECONDS)
    return monotonic()


@fault("Redis: disk full, appendfsync always", quick=False, seconds=4)
def fill_disk(world: World) -> float:
    """Valkey ends itself, because it has promised what it cannot keep."""
    pid = world.server.pid
    _limit_files(world, DISK_LEFT_BYTES)
    wait_until(lambda: not is_alive(pid), "the server to end itself")
    world.server.kill()
    return _start_again(world)


@fault("Redis: disk full, appendfsync everysec", quick=False, seconds=10)
def fill_disk_everysec(world: World) -> float:
    """Valkey lives on and refuses writes until there is room."""
    redis = world.stack.redis
    redis.config_set("appendfsync", "everysec")
    _limit_files(world, DISK_LEFT_BYTES)
    wait_until(lambda: redis.info("persistence")["aof_last_write_status"] == "err", "the disk to be full")
    world.pause(FULL_SECONDS)
    resource.prlimit(world.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ended = monotonic()
    wait_until(lambda: redis.info("persistence")["aof_last_write_status"] == "ok", "the disk to have room")
    redis.config_set("appendfsync", "always")
    return ended


def _limit_files(world: World, left: int) -> None:
    largest = max(file.stat().st_size for file in world.stack.folder.glob("valkey/appendonlydir/*.aof"))
    resource.prlimit(world.server.pid, resource.RLIMIT_FSIZE, (largest + left, resource.RLIM_INFINITY))


@fault("Redis: out of memory", seconds=5)
def fill_memory(world: World) -> float:
    redis = world.stack.redis
    redis.config_set("maxmemory", redis.info("memory")["used_memory"] + MEMORY_LEFT_BYTES)
    world.pause(1 if world.quick else FULL_SECONDS)
    redis.config_set("maxmemory", 0)
    return monotonic()


@fault("Redis: SCRIPT FLUSH")
def forget_scripts(world: World) -> float:
    world.stack.redis.script_flush()
    return monotonic()


@fault("Redis: all connections killed")
def kill_connections(world: World) -> float:
    world.stack.redis.client_kill_filter(_type="normal", skipme=True)
    return monotonic()
