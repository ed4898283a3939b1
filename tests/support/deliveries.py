"""Deliveries as the receiver hands them to the intake, and an intake to take them."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import orjson

from app.config.settings import Settings
from app.delivery.envelope import Envelope, Reader
from app.delivery.identity import Identity, identify
from app.delivery.payload import read_payload
from app.inbox.record import Delivery
from app.receiver.intake import Intake, Receipt
from app.receiver.refusals import Unavailable
from tests.support import PATIENCE_SECONDS

LONGEST_BUDGET_SECONDS = 1.9
"""As much as the settings allow, for tests that only want events to be there."""

_READER = Reader()


def identity(body: bytes, reader: Reader = _READER) -> Identity:
    """Of a body, as the receiver makes it."""
    payload = read_payload(body)
    envelope = reader.read(payload.value)
    return identify(body, payload, envelope, reader.former_event_id(payload.value, envelope))


def received(body: bytes) -> Delivery:
    """A delivery with all that is read of its body."""
    envelope = _READER.read(read_payload(body).value)
    return Delivery(identity(body), orjson.dumps(envelope._asdict()), body)


def delivery(body: bytes, event_id: str | None = None, type: str = "test.ok") -> Delivery:
    """A delivery of which the test says what has been read of it."""
    identity = identify(body, read_payload(body), Envelope(event_id, type), event_id)
    return Delivery(identity, orjson.dumps({"type": type}), body)


def run(settings: Settings, use: Callable[[Intake], Awaitable[object]]) -> object:
    async def session() -> object:
        intake = Intake(settings)
        try:
            return await use(intake)
        finally:
            await intake.close()

    return asyncio.run(session())


def accept_all(settings: Settings, *deliveries: Delivery) -> list[Receipt]:
    async def use(intake: Intake) -> list[Receipt]:
        return list(await asyncio.gather(*map(intake.accept, deliveries)))

    receipts = run(settings, use)
    assert isinstance(receipts, list)
    return receipts


def queue_events(settings: Settings, number: int, type: str = "test.ok") -> list[str]:
    """Records so many different events; their ids."""
    bodies = [f'{{"type":"{type}","n":{n}}}'.encode() for n in range(number)]
    settings = settings.model_copy(update={"ack_budget": LONGEST_BUDGET_SECONDS})  # this machine may be busy
    receipts = accept_all(settings, *(delivery(body, type=type) for body in bodies))
    return [receipt.id for receipt in receipts]


async def accept_patiently(intake: Intake, wanted: Delivery) -> Receipt:
    """Sends again as JobsiteOn would, but at once."""
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await intake.accept(wanted)
        except Unavailable:
            assert monotonic() < deadline
