"""Processes killed or stopped at moments that nobody has chosen."""

import os
import signal
from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.processes import kill, parent
from tests.chaos.world import LEASE_SECONDS, World


@fault("receiver: kill -9")
def kill_receiver(world: World) -> float:
    kill(world.ledger, world.random.choice(world.receivers).pid, "kill -9")
    return monotonic()


@fault("receiver: SIGTERM")
def stop_receiver(world: World) -> float:
    os.kill(world.random.choice(world.receivers).pid, signal.SIGTERM)
    return monotonic()


@fault("worker: kill -9")
def kill_worker(world: World) -> float:
    kill(world.ledger, world.busy_worker(), "kill -9")
    return monotonic()


@fault("worker: SIGTERM", quick=False)
def stop_worker(world: World) -> float:
    os.kill(world.busy_worker(), signal.SIGTERM)
    return monotonic()


@fault("supervisor: kill -9")
def kill_supervisor(world: World) -> float:
    """Its workers notice by themselves."""
    kill(world.ledger, world.random.choice(world.supervisors).pid, "kill -9")
    return monotonic()


@fault("supervisor: SIGTERM", quick=False)
def stop_supervisor(world: World) -> float:
    os.kill(world.random.choice(world.supervisors).pid, signal.SIGTERM)
    return monotonic()


@fault("worker and its supervisor: kill -9", quick=False, seconds=15)
def kill_worker_and_supervisor(world: World) -> float:
    """Nobody is left who saw it die: its event waits for the end of the lease."""
    worker = world.busy_worker()
    kill(world.ledger, parent(worker), "kill -9")
    kill(world.ledger, worker, "kill -9")
    return monotonic() + LEASE_SECONDS
