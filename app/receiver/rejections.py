"""Keeps what fails the signature for the operator, off the way of the answer (P3, P10).

The endpoint only puts a refused delivery into a queue. One task writes what is in the queue to Redis, on a connection
of its own. Whatever is too much, too fast or cannot be written is dropped and counted; nothing waits for it.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, get_args

import structlog
from redis.exceptions import NoScriptError
from starlette.types import Scope

from app.config.settings import Settings
from app.errors import SignatureFault, describe
from app.inbox.rejected import pack_head, reject_arguments
from app.inbox.scripts import REJECT
from app.store.connections import connect_async

PER_SECOND, BURST = 5.0, 200.0
"""Deliveries kept by this process in the long run, and at once."""
PEER_PER_SECOND, PEER_BURST = 1.0, 100.0
"""The same for one peer, so that one alone does not take it all."""
MOST_PEERS = 1024
"""Peers remembered; of those seen longest ago nothing is known any more."""
MOST_WAITING = 256
MOST_WAITING_BYTES = 8 * 1024**2
"""What waits to be written. A body larger than this waits only alone."""
WRITE_SECONDS = 2.0
CLOSE_SECONDS = 1.0
"""How long a receiver that stops goes on writing what waits."""
SAY_SECONDS = 1.0
"""The log says at most so often that some were dropped."""
DROPPED = ("rate", "queue", "redis", "memory", "too large")
"""Why a rejected delivery is not kept: too many a second, too many waiting, Redis away, Redis nearly full, or larger
than all that may be kept."""

FAULTS: tuple[SignatureFault, ...] = get_args(SignatureFault)

log = structlog.stdlib.get_logger(__name__)


class Bucket:
    """A token bucket: `rate` tokens a second, of which at most `burst` are saved up."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._tokens, self._at = rate, burst, burst, 0.0

    def take(self, now: float) -> bool:
        """Takes a token, if there is one. `now` is of a clock that never goes back, in seconds."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Waiting(NamedTuple):
    received: float
    peer: str
    fault: SignatureFault
    scope: Scope
    body: bytes


class Rejections:
    """Takes refused deliveries and keeps them in Redis. `count_dropped` is told why one is not kept."""

    def __init__(self, settings: Settings, count_dropped: Callable[[str], None]) -> None:
        self._settings = settings
        self._count_dropped = count_dropped
        scheme = settings.signature_scheme
        self._always = (scheme.header, scheme.timestamp_header, scheme.id_header)
        self._redis = connect_async(settings.redis_url, timeout=WRITE_SECONDS, connect_timeout=WRITE_SECONDS)
        self._all = Bucket(PER_SECOND, BURST)
        self._peers: OrderedDict[str, Bucket] = OrderedDict()
        self._queue: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._untold: Counter[str] = Counter()
        self._said = float("-inf")

    def note(self, scope: Scope, body: bytes, peer: str, fault: SignatureFault) -> None:
        """Puts a refused delivery in line to be kept. Never waits and never fails."""
        if not self._settings.rejected_bytes:
            return
        if not self._may_pass(peer):
            self._drop("rate")
            return
        held = self._waiting_bytes + len(body)
        if len(self._queue) >= MOST_WAITING or (self._queue and held > MOST_WAITING_BYTES):
            self._drop("queue")
            return
        self._waiting_bytes = held
        self._queue.append(_Waiting(time.time(), peer, fault, scope, body))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Writes what waits, if that takes no longer than a moment, and closes the connection."""
        if writer := self._writer:
            await asyncio.wait([writer], timeout=CLOSE_SECONDS)
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        for _ in self._queue:
            self._drop("queue")
        self._queue.clear()
        await self._redis.aclose()

    def _may_pass(self, peer: str) -> bool:
        now = time.monotonic()
        bucket = self._peers.get(peer)
        if bucket is None:
            bucket = self._peers[peer] = Bucket(PEER_PER_SECOND, PEER_BURST)
            if len(self._peers) > MOST_PEERS:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(peer)
        return bucket.take(now) and self._all.take(now)

    async def _write_all(self) -> None:
        try:
            while self._queue:
                waiting = self._queue.popleft()
                await self._write(waiting)
                self._waiting_bytes -= len(waiting.body)
        finally:
            self._writer = None

    async def _write(self, waiting: _Waiting) -> None:
        try:
            outcome = await self._run(waiting)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs nobody but this delivery
            self._drop("redis", **describe(error))
        else:
            if outcome != "kept":
                self._drop(outcome)

    async def _run(self, waiting: _Waiting) -> str:
        scope = waiting.scope
        head = pack_head(scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], self._always)
        arguments: Any = reject_arguments(
            self._settings, waiting.received, waiting.peer, waiting.fault, head, waiting.body
        )
        async with asyncio.timeout(WRITE_SECONDS):
            try:
                outcome: Any = await self._redis.evalsha(REJECT.sha, 0, *arguments)
            except NoScriptError:
                outcome = await self._redis.eval(REJECT.text, 0, *arguments)
        return str(outcome.decode())

    def _drop(self, reason: str, **error: str) -> None:
        self._count_dropped(reason)
        self._untold[reason] += 1
        now = time.monotonic()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            log.warning("rejected deliveries not kept", **_words(self._untold), **error)
            self._untold.clear()


def _words(dropped: Counter[str]) -> dict[str, int]:
    return {reason.replace(" ", "_"): number for reason, number in dropped.items()}
