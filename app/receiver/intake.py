"""Records deliveries for many concurrent requests in few round trips: group commit.

While as many batches as the plan allows are on their way to Redis, the deliveries that arrive wait; when
one has been answered, all of them go out together. Under load a batch shares one script call and one wait
for the disk (P1); with no load a delivery goes out at once.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import structlog
from redis.exceptions import ConnectionError, NoScriptError, ReadOnlyError, ResponseError  # noqa: A004

from app.config.settings import Settings
from app.errors import describe
from app.inbox import schema
from app.inbox.inbox import accept_arguments
from app.inbox.record import Delivery
from app.inbox.scripts import ACCEPT
from app.receiver.refusals import Unavailable
from app.store.lines import Line, Lines

MAX_BATCH = 128
"""Deliveries per round trip: about 5 ms of the server's time."""
MAX_BATCH_BYTES = 4 * 1024**2
MAX_WAITING = 4096
"""Deliveries waiting; one more is refused at once, so that memory stays bounded whatever Redis does."""
MAX_WAITING_BYTES = 64 * 1024**2
TIMER_SECONDS = 0.001
"""The finest that the event loop's timers are: they may fire so much too early."""

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
    """Done when the delivery has been answered, be it because its time was up or its client has gone."""
    tried: bool = False
    """Whether a connection has been lost while it was on its way."""


class Intake:
    """Records deliveries in Redis, as durably as configured, within the ack budget.

    Each delivery has a deadline, and each batch the whole budget from when it is sent: what one delivery has
    lost by waiting is not taken from those that it is sent with.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lines = Lines(
            settings.redis_url,
            settings.durability,
            settings.ack_budget,
            script=ACCEPT.text,
            version_key=schema.KEY,
            verify=schema.verify,
            on_ready=self._send_out,
            on_failure=self._refuse_waiting,
        )
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._answers: deque[tuple[float, asyncio.Future[Receipt]]] = deque()
        """Deadlines and receipts in the order of arrival, without the delivery: a body is let go once it is sent."""
        self._alarm: asyncio.TimerHandle | None = None
        self._committers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connects, so that the first delivery does not have to wait for it. Returns also if that fails."""
        await self._lines.start()

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
        while self._answers and self._answers[0][1].done():
            self._answers.popleft()
        self._answers.append((waiting.deadline, waiting.receipt))
        self._alarm = self._alarm or loop.call_at(waiting.deadline, self._refuse_late)
        self._send_out()
        return await waiting.receipt

    async def close(self) -> None:
        """Finishes what is on its way and closes the connections."""
        while committers := tuple(self._committers):
            await asyncio.gather(*committers, return_exceptions=True)
            # To gather what has ended takes no turn of the loop (Python 3.12), in which they would take themselves out.
            self._committers.difference_update(committers)
        self._refuse_waiting()
        if self._alarm:
            self._alarm.cancel()
        await self._lines.close()

    def _send_out(self) -> None:
        if self._waiting and (line := self._lines.take()):
            committer = asyncio.create_task(self._commit_all(line))
            self._committers.add(committer)
            committer.add_done_callback(self._committers.discard)

    async def _commit_all(self, line: Line) -> None:
        while batch := self._next_batch():
            if not (await self._commit(line, batch) and await self._lines.has_recorded(line)):
                self._send_out()  # on another line, if there is one
                return
        # In the same step as the last look, so that no delivery can come in between and find nobody.
        self._lines.put_back(line)

    def _next_batch(self) -> list[_Waiting]:
        """Those that have waited longest; once they wait for too long, those that have come last.

        Under overload the oldest have hardly any time left. Sent first, they would all be too late, one after
        the other, and nothing would be accepted any more.
        """
        now = asyncio.get_running_loop().time()
        overloaded = bool(self._waiting) and self._waiting[0].deadline - now < self._settings.ack_budget / 2
        take = self._waiting.pop if overloaded else self._waiting.popleft
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            waiting = take()
            self._waiting_bytes -= len(waiting.delivery.body)
            if waiting.deadline <= now:
                _refuse(waiting.receipt)
            elif not waiting.receipt.done():
                size += len(waiting.delivery.body)
                batch.append(waiting)
        if overloaded:
            batch.reverse()  # as they came
        return batch

    async def _commit(self, line: Line, batch: list[_Waiting]) -> bool:
        """Records a batch and answers each delivery in it. Whether the line is still good."""
        try:
            async with asyncio.timeout(self._settings.ack_budget):
                receipts = await self._record(line, [waiting.delivery for waiting in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, each delivery gets an answer (P6)
            if isinstance(error, ConnectionError | ReadOnlyError):
                self._put_off(batch)
            else:
                for waiting in batch:
                    _refuse(waiting.receipt)
            log.error("deliveries not recorded", deliveries=len(batch), **describe(error))
            self._lines.give_up(line, alone=isinstance(error, TimeoutError))
            return False
        for waiting, receipt in zip(batch, receipts, strict=True):
            if not waiting.receipt.done():
                waiting.receipt.set_result(receipt)
        return True

    async def _record(self, line: Line, deliveries: list[Delivery]) -> list[Receipt]:
        arguments = accept_arguments(self._settings, deliveries)
        replies, *waited = await line.pipe.ask(("EVALSHA", ACCEPT.sha, 0, *arguments), *line.plan.waits)
        if isinstance(replies, NoScriptError):
            replies, *waited = await line.pipe.ask(("EVAL", ACCEPT.text, 0, *arguments), *line.plan.waits)
        if isinstance(replies, ResponseError):
            raise replies
        line.heard = asyncio.get_running_loop().time()
        if not line.plan.confirmed(waited):
            raise Unavailable
        return [
            Receipt(cast(Status, status.decode()), id.decode())
            for status, id in zip(replies[::2], replies[1::2], strict=True)
        ]

    def _put_off(self, batch: list[_Waiting]) -> None:
        """Tries once more: a server that restarts, or is no primary any more, leaves connections behind."""
        for waiting in reversed(batch):
            if waiting.tried:
                _refuse(waiting.receipt)
            else:
                waiting.tried = True
                self._waiting.appendleft(waiting)
                self._waiting_bytes += len(waiting.delivery.body)

    def _refuse_waiting(self) -> None:
        while self._waiting:
            _refuse(self._waiting.popleft().receipt)
        self._waiting_bytes = 0

    def _refuse_late(self) -> None:
        """Answers those whose time is up, wherever they are."""
        loop = asyncio.get_running_loop()
        while self._answers and (self._answers[0][1].done() or self._answers[0][0] <= loop.time() + TIMER_SECONDS):
            _refuse(self._answers.popleft()[1])
        while self._waiting and self._waiting[0].receipt.done():
            self._waiting_bytes -= len(self._waiting.popleft().delivery.body)
        self._alarm = loop.call_at(self._answers[0][0], self._refuse_late) if self._answers else None


def _refuse(receipt: "asyncio.Future[Receipt]") -> None:
    if not receipt.done():  # done: it has been refused already, or the client has gone
        receipt.set_exception(Unavailable())
