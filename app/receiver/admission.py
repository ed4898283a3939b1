"""Takes in rejected deliveries that verify under the present settings, as if they had just come (P10)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis

from app.config.keys import signing_keys
from app.config.settings import Settings
from app.delivery.envelope import Reader
from app.delivery.signature import Verifier
from app.errors import BadSignature, SignatureFault
from app.inbox.rejected import Rejected, RejectedDeliveries
from app.receiver.endpoint import read_delivery
from app.receiver.intake import Intake, Receipt
from app.receiver.refusals import Unavailable

AT_ONCE = 20
"""Deliveries on their way to Redis at the same time: they share a wait for the disk."""


class Admitted(NamedTuple):
    """What became of a rejected delivery. One of the two is set; neither if Redis could not record it in time."""

    rejected: Rejected
    receipt: Receipt | None = None
    fault: SignatureFault | None = None
    """Why it still does not verify. It stays where it is."""


class Admission:
    """Verifies again and records. `by` is who asked for it, for the event's record."""

    def __init__(self, settings: Settings, redis: "Redis", by: str) -> None:
        self._settings = settings
        self._kept = RejectedDeliveries(redis)
        self._by = by
        self._keys = signing_keys(settings)
        self._verifier = Verifier(settings.signing_keys, settings.signature_scheme)
        self._reader = Reader(settings.envelope_paths)

    async def admit(self, rejected: Iterable[Rejected]) -> AsyncIterator[Admitted]:
        """Takes in what now verifies, in this order, the receiver's own way: a redelivery is a duplicate here too.

        What has been recorded is no longer kept among the rejected. If that cannot be noted, it is recorded again
        the next time, as a duplicate.
        """
        remaining = iter(rejected)
        intake = Intake(self._settings)
        try:
            await intake.start()
            while batch := list(islice(remaining, AT_ONCE)):
                ended = await asyncio.gather(*(self._admit(intake, one) for one in batch))
                self._kept.remove([one.rejected.id for one in ended if one.receipt])
                for one in ended:
                    yield one
        finally:
            await intake.close()

    async def _admit(self, intake: Intake, rejected: Rejected) -> Admitted:
        request = rejected.request
        try:
            index = self._verifier.verify(
                *(request.all, request.body, request.method, request.path, request.query), now=rejected.received
            )
        except BadSignature as bad:
            return Admitted(rejected, fault=bad.fault)

        def joined(name: bytes) -> bytes:
            return b",".join(request.all(name))

        _, delivery = read_delivery(
            self._reader, joined, request.body, rejected.peer, self._keys[index], self._audit(rejected)
        )
        try:
            return Admitted(rejected, await intake.accept(delivery))
        except Unavailable:
            return Admitted(rejected)

    def _audit(self, rejected: Rejected) -> dict[str, Any]:
        """What the event's record says of its admission. Times are ISO 8601."""
        now, refused = datetime.now(UTC), datetime.fromtimestamp(rejected.received, UTC)
        return {"admitted": {"by": self._by, "at": _iso(now), "refused_at": _iso(refused), "rejected": rejected.id}}


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
