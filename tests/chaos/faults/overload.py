"""More than a receiver should have to bear."""

import asyncio
from time import monotonic

from app.cli.embedded import HOST
from app.receiver.endpoint import PATH
from app.store.durability import BATCHES
from tests.chaos.fault import fault
from tests.chaos.ledger import Delivery
from tests.chaos.processes import stopped
from tests.chaos.receiver import MAX_BATCH
from tests.chaos.world import World

QUEUED_CONNECTIONS = 600
SLOW_CONNECTIONS = 1000
SLOW_BODY_BYTES = 1000
SLOW_PAUSE_SECONDS = 0.5
SLOW_SECONDS, SLOW_SECONDS_QUICK = 5, 3
GOOD_SHARE = 0.9
COPIES = 64
FREEZE_SECONDS = 1.5
ROUND_TRIP_SECONDS = 0.08
FACTOR = 4
"""How many times as much is sent as can be recorded."""
OVERLOAD_SECONDS = 5.0
FULL_SHARE = 0.7
"""Of the capacity, that has to be used: it is nearly all of it, less what the machine takes for itself."""
CAPACITY_PER_SECOND = BATCHES / ROUND_TRIP_SECONDS
"""Of each receiver, with one delivery in each batch."""


@fault("overload: 600 connections at a frozen receiver", quick=False, seconds=8)
def queue_up(world: World) -> float:
    receiver = world.random.randrange(len(world.receivers))
    bodies = [world.sender.body("chaos.plain") for _ in range(QUEUED_CONNECTIONS)]
    with stopped(world.ledger, [world.receivers[receiver].pid]):
        waiting = world.spawn(_all(world, bodies, receiver))
        world.pause(FREEZE_SECONDS)
    ended = monotonic()
    if not waiting.result():
        world.ledger.complaints.append("of the connections that had queued up, none was answered 200")
    return ended


async def _all(world: World, bodies: list[bytes], receiver: int) -> int:
    answers = await asyncio.gather(*(world.sender.try_once(body, receiver) for body in bodies))
    return sum(answer.status == 200 for answer in answers)


@fault("overload: 1,000 slow bodies", quick=False, seconds=8)
def dawdle(world: World) -> float:
    """Good deliveries beside them have to be answered."""
    receiver = world.random.randrange(len(world.receivers))
    begun = monotonic()
    world.run(_dawdle(world.ports[receiver], begun + (SLOW_SECONDS_QUICK if world.quick else SLOW_SECONDS)))
    ended = monotonic()
    good = [d for d in list(world.ledger.deliveries) if d.authentic and begun < d.sent < ended - 1]
    answered = sum(d.status == 200 for d in good)
    if answered < GOOD_SHARE * len(good):
        world.ledger.complaints.append(f"beside slow bodies, {answered} of {len(good)} deliveries were answered 200")
    return ended


async def _dawdle(port: int, until: float) -> None:
    await asyncio.gather(*(_send_slowly(port, until) for _ in range(SLOW_CONNECTIONS)))


async def _send_slowly(port: int, until: float) -> None:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {SLOW_BODY_BYTES}\r\n\r\n"
        writer.write(head.encode())
        while monotonic() < until and not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(SLOW_PAUSE_SECONDS)
        writer.close()
    except OSError:
        return  # the receiver has had enough of it


@fault("overload: 64 copies at once")
def send_copies(world: World) -> float:
    """One event (the oracle looks for a second)."""
    body = world.sender.body("chaos.steps")
    answers = world.run(_copies(world, body))
    ids = {answer.id for answer in answers if answer}
    if len(ids) != 1:
        world.ledger.complaints.append(f"{COPIES} copies became {len(ids)} events")
    return monotonic()


async def _copies(world: World, body: bytes) -> list[Delivery | None]:
    return list(await asyncio.gather(*(world.sender.deliver(body, copy % 2) for copy in range(COPIES))))


@fault("overload: 4 × capacity", quick=False, seconds=14)
def send_too_much(world: World) -> float:
    """As much is accepted as can be, and the rest has an honest 503."""
    world.proxies["receivers"].delay = ROUND_TRIP_SECONDS
    world.restart_receivers({MAX_BATCH: "1"})
    begun = monotonic()
    world.run(_send_too_much(world, begun + OVERLOAD_SECONDS))
    ended = monotonic()
    accepted = sum(d.status == 200 and begun < (d.answered or 0) < ended for d in list(world.ledger.deliveries))
    possible = len(world.ports) * CAPACITY_PER_SECOND * (ended - begun)
    if accepted < FULL_SHARE * possible:
        world.ledger.complaints.append(f"under overload, {accepted} deliveries were answered 200 of {possible:.0f}")
    world.proxies["receivers"].delay = 0.0
    world.restart_receivers({})
    return monotonic()


async def _send_too_much(world: World, until: float) -> None:
    pause = 1 / (FACTOR * CAPACITY_PER_SECOND * len(world.ports))
    sent: list[asyncio.Task[Delivery]] = []
    while monotonic() < until:
        body = world.sender.body("chaos.plain")
        sent.append(asyncio.create_task(world.sender.try_once(body, len(sent) % len(world.ports))))
        await asyncio.sleep(pause)
    for task in sent:
        task.cancel()  # what is still without an answer does not count
    await asyncio.gather(*sent, return_exceptions=True)
