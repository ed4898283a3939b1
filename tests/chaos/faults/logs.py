"""Whoever reads the logs."""

import contextlib
import os
from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.world import World
from tests.support import wait_until

EVENTS = 100


@fault("logs: a reader that stalls", seconds=6)
def stall_reader(world: World) -> float:
    """Receivers and workers write to a pipe that is full, and nobody reads. Every delivery has to be answered."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    _restart_everything(world, writer)
    begun = monotonic()
    world.stream_on(EVENTS)
    ended = monotonic()
    sent = [d for d in list(world.ledger.deliveries) if d.authentic and begun < d.sent < ended and d.answered]
    answered = sum(d.status == 200 for d in sent)
    if answered < len(sent):
        world.ledger.complaints.append(
            f"while nobody read the logs, {answered} of {len(sent)} deliveries got their 200"
        )
    _restart_everything(world, None)
    os.close(writer)
    os.close(reader)
    return monotonic()


def _restart_everything(world: World, output: int | None) -> None:
    world.stack.output = output
    services = [*world.receivers, *world.supervisors]
    before = {service.process for service in services}
    for service in services:
        service.process.terminate()
    wait_until(lambda: not before & {service.process for service in services}, "their successors")
    wait_until(world.all_answer, "the receivers")
