"""JobsiteOn under chaos: a steady stream of events, sent again until answered 200.

Every other event's tries are written anew, each in another form. Among the events are deliberate duplicates,
conflicts (the same id, another business object) and forgeries. What each event
is, where it goes and what is done with it is decided by the seed.
"""

import asyncio
import random
from collections.abc import Sequence
from time import monotonic
from zlib import crc32

import httpx
import orjson

from app.delivery.signature import HEADER, sign
from app.simulator.sender import edited, rewritten
from tests.chaos.handlers import STEPS
from tests.chaos.ledger import Delivery, Ledger

PER_SECOND = 52
TIMEOUT_SECONDS = 5.0
"""JobsiteOn's."""
RETRY_SECONDS = (0.2, 0.5, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0)
"""JobsiteOn's minutes and hours, shortened; then it gives up, and what was never answered 200 may be lost."""

INSIST_SECONDS = 0.05
"""Between the tries of a delivery that shows whether a receiver has healed."""
PROBE = "chaos.plain"

RESOURCES = 5
"""So many resources are shared by the events that take turns."""
TYPES, WEIGHTS = list(STEPS), (45, 25, 10, 5, 10, 5, 0)
"""The last is sent by a fault only."""
DUPLICATES, LATE_DUPLICATES, CONFLICTS, FORGERIES = 0.05, 0.05, 0.05, 0.05
REWRITTEN = 0.5
"""Of the duplicates."""
LATE_SECONDS = 2.0
_WRONG_KEY = b"not-the-key-0123456789"


class Sender:
    """Sends to several receivers. Its coroutines all run in one event loop."""

    def __init__(self, urls: Sequence[str], key: bytes, ledger: Ledger, seed: int) -> None:
        self._urls = urls
        self._key = key
        self._ledger = ledger
        self._random = random.Random(seed)  # noqa: S311 - reproducible
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )
        self._stories: set[asyncio.Task[None]] = set()
        self._number = 0
        self._stopped = False
        self.begun = 0
        """Events of the stream so far."""

    async def stream(self) -> None:
        """Sends until stopped, then until everything is answered or given up."""
        due = monotonic()
        while not self._stopped:
            self.begun += 1
            story = asyncio.create_task(self._story(random.Random(self._random.random())))  # noqa: S311
            self._stories.add(story)
            story.add_done_callback(self._stories.discard)
            due = max(due + 1 / PER_SECOND, monotonic() - 1)  # a stall is not made up for by a flood
            await asyncio.sleep(max(0.0, due - monotonic()))
        await asyncio.gather(*self._stories)
        await self._client.aclose()

    def stop(self) -> None:
        """No new events from now on."""
        self._stopped = True

    def body(self, type: str, resource: str = "res_0") -> bytes:
        """The body of a new event."""
        self._number += 1
        return orjson.dumps({"id": f"evt_{self._number}", "type": type, "data": {"id": resource}})

    async def _story(self, rng: random.Random) -> None:
        type = rng.choices(TYPES, WEIGHTS)[0]
        body = self.body(type, f"res_{rng.randrange(RESOURCES)}")
        chance = rng.random()
        if chance < FORGERIES:
            await self._post(body, rng.randrange(len(self._urls)), authentic=False)
        elif chance < FORGERIES + DUPLICATES:
            await asyncio.gather(
                self.deliver(body, 0),
                *(self.deliver(body, index, again=rng.random() < REWRITTEN) for index in range(1, len(self._urls))),
            )
        elif chance < FORGERIES + DUPLICATES + CONFLICTS:
            await asyncio.gather(self._deliver_somewhere(body, rng), self._deliver_somewhere(edited(body), rng))
        else:
            await self._deliver_somewhere(body, rng)
            if chance > 1 - LATE_DUPLICATES:
                await asyncio.sleep(rng.uniform(0, LATE_SECONDS))
                await self._deliver_somewhere(body, rng, again=rng.random() < REWRITTEN)

    async def _deliver_somewhere(self, body: bytes, rng: random.Random, *, again: bool = False) -> Delivery | None:
        return await self.deliver(body, rng.randrange(len(self._urls)), again=again)

    async def deliver(self, body: bytes, receiver: int, *, roam: bool = True, again: bool = False) -> Delivery | None:
        """Delivers until answered 200, to one receiver after the other if it may roam; None if it gives up.

        With `again`, the first try is written anew already.
        """
        sent = rewritten(body) if again else body
        anew = crc32(body) % 2 == 0
        for attempt, pause in enumerate((*RETRY_SECONDS, 0.0)):
            delivery = await self._post(sent, (receiver + attempt * roam) % len(self._urls), first=body)
            sent = rewritten(sent) if anew else sent
            if delivery.status == httpx.codes.OK:
                return delivery
            await asyncio.sleep(pause)
        return None

    async def insist(self, receiver: int) -> str:
        """Delivers a new event to one receiver until it is answered 200; the event's id."""
        body = self.body(PROBE)
        delivery = await self._post(body, receiver)
        while delivery.id is None:
            await asyncio.sleep(INSIST_SECONDS)
            delivery = await self._post(body, receiver)
        return delivery.id

    async def try_once(self, body: bytes, receiver: int) -> Delivery:
        """One delivery, whatever comes of it."""
        return await self._post(body, receiver)

    async def _post(
        self, body: bytes, receiver: int, *, authentic: bool = True, first: bytes | None = None
    ) -> Delivery:
        delivery = Delivery(body, receiver, monotonic(), authentic, first=first)
        self._ledger.deliveries.append(delivery)
        key = self._key if authentic else _WRONG_KEY
        headers = {HEADER.decode(): sign(key, body), "content-type": "application/json"}
        try:
            answer = await self._client.post(self._urls[receiver], content=body, headers=headers)
        except httpx.HTTPError:
            return delivery
        if answer.status_code == httpx.codes.OK:
            said = answer.json()
            delivery.verdict, delivery.id = said["status"], said["id"]
        delivery.answered, delivery.status = monotonic(), answer.status_code
        return delivery
