"""Records deliveries for many concurrent requests in few round trips: group commit.

While as many batches as the plan allows are on their way to Redis, the deliveries that arrive wait; when
one has been answered, all of them go out together. Under load a batch shares one script call and one wait
for the disk (P1); with no load a delivery goes out at once.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError  # noqa: A004

from app.config.settings import Settings
from app.errors import describe
from app.inbox.inbox import accept_arguments
from app.inbox.record import Delivery
from app.inbox.scripts import ACCEPT
from app.receiver.refusals import Unavailable
from app.store.connections import connect_async
from app.store.durability import Plan, Server, plan
from app.store.pipe import Pipe

MAX_BATCH = 128
"""Deliveries per round trip: about 5 ms of the server's time."""
MAX_BATCH_BYTES = 4 * 1024**2
MAX_WAITING = 4096
"""Deliveries waiting; one more is refused at once, so that memory stays bounded whatever Redis does."""
MAX_WAITING_BYTES = 64 * 1024**2

Status = Literal["accepted", "duplicate", "revived", "conflict"]

log = structlog.stdlib.get_logger(__name__)


class Receipt(NamedTuple):
    """What became of a delivery."""

    status: Status
    id: str


@dataclass(slots=True)
class _Waiting:
    delivery: Delivery
    deadline: float
    receipt: asyncio.Future[Receipt]


class Intake:
    """Records deliveries in Redis, as durably as configured, within the ack budget."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect_async(
            settings.redis_url,
            timeout=None,  # each batch has its own deadline
            connect_timeout=settings.ack_budget,
            retries=1,  # a connection that a restarted server has left behind
        )
        self._idle: list[Pipe] = []
        self._plan: Plan | None = None
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._committers: set[asyncio.Task[None]] = set()
        self._committing = 0

    async def accept(self, delivery: Delivery) -> Receipt:
        """Records a delivery; when this returns, it is as durable as configured.

        Raises:
            Unavailable: it could not be done in time. It may have been recorded all the same; then the
                sender's next try is a duplicate.
        """
        if len(self._waiting) >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            raise Unavailable
        loop = asyncio.get_running_loop()
        waiting = _Waiting(delivery, loop.time() + self._settings.ack_budget, loop.create_future())
        self._waiting.append(waiting)
        self._waiting_bytes += len(delivery.body)
        if self._committing < (self._plan.parallel if self._plan else 1):
            self._committing += 1
            committer = loop.create_task(self._commit_all())
            self._committers.add(committer)
            committer.add_done_callback(self._committers.discard)
        return await waiting.receipt

    async def close(self) -> None:
        """Finishes what is on its way and closes the connections."""
        await asyncio.gather(*self._committers, return_exceptions=True)
        await self._disconnect()
        await self._redis.aclose()

    async def _commit_all(self) -> None:
        pipe = self._idle.pop() if self._idle else Pipe(self._redis.connection_pool)
        while batch := self._next_batch():
            try:
                async with asyncio.timeout_at(batch[0].deadline):
                    receipts = await self._commit(pipe, [waiting.delivery for waiting in batch])
            except Exception as error:  # noqa: BLE001 - whatever it is, each delivery gets an answer (P6)
                for waiting in batch:  # first of all: what follows may take time of its own
                    if not waiting.receipt.done():
                        waiting.receipt.set_exception(Unavailable())
                log.error("deliveries not recorded", deliveries=len(batch), **describe(error))
                self._plan = None  # the next server may be another one
                with contextlib.suppress(Exception):
                    await pipe.close()  # a demoted server keeps its clients
                    await self._disconnect()
            else:
                for waiting, receipt in zip(batch, receipts, strict=True):
                    if not waiting.receipt.done():  # done: the client has gone
                        waiting.receipt.set_result(receipt)
        # In the same step as the last look, so that no delivery can come in between and find nobody.
        self._committing -= 1
        self._idle.append(pipe)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            waiting = self._waiting.popleft()
            size += len(waiting.delivery.body)
            batch.append(waiting)
        self._waiting_bytes -= size
        return batch

    async def _disconnect(self) -> None:
        for pipe in self._idle:
            await pipe.close()
        await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _commit(self, pipe: Pipe, deliveries: list[Delivery]) -> list[Receipt]:
        arguments = accept_arguments(self._settings, deliveries)
        try:
            replies = await self._record(pipe, arguments)
        except ConnectionError:  # left behind by a server that has restarted since, perhaps as another one
            self._plan = None
            replies = await self._record(pipe, arguments)
        return [
            Receipt(cast(Status, status.decode()), id.decode())
            for status, id in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def _record(self, pipe: Pipe, arguments: list[Any]) -> list[bytes]:
        made = self._plan = self._plan or await self._make_plan()
        replies, *waited = await pipe.ask(("EVALSHA", ACCEPT.sha, 0, *arguments), *made.waits)
        if isinstance(replies, NoScriptError):
            replies, *waited = await pipe.ask(("EVAL", ACCEPT.text, 0, *arguments), *made.waits)
        if isinstance(replies, ResponseError):
            raise replies
        if not made.confirmed(waited):
            raise Unavailable
        return cast(list[bytes], replies)

    async def _make_plan(self) -> Plan:
        made = plan(self._settings.durability, await server(self._redis), self._settings.ack_budget)
        if made.shortfall:
            log.error("not durable", remedy=made.shortfall)
            raise Unavailable
        return made


async def server(redis: Redis) -> Server:
    """What the server is and how it keeps what is written."""
    info = await redis.info("everything")
    try:
        config: Any = await redis.config_get("appendfsync", "maxmemory-policy")
    except ResponseError:  # managed services forbid CONFIG
        config = {}
    return Server.from_info(info, config)
