"""The body of a request, within limits of size and time (P3, P6)."""

import asyncio
import math
from typing import cast

from starlette.types import Receive

from app.config.settings import BODY_SECONDS
from app.receiver.refusals import BodyTooLarge, BodyTooSlow, Unavailable

MAX_HELD_BYTES = 256 * 1024**2
"""Of all bodies that are being read at the same time: the most that strangers can make a process hold."""
GRACE_SECONDS = 0.25
"""If the timer fires later than this, the receiver itself was stalled: slow bodies then get this much more, once."""
_TOO_SLOW = "the body is too slow"
_LONGEST_NUMBER = 19
"""Digits of a Content-Length that are worth converting, without zeros in front."""

Task = asyncio.Task[object]


class Disconnected(Exception):
    """The client went away before its body was complete; there is nobody to answer."""


class Crowded(Unavailable):
    """The bodies that are being read are together more than can be held, so this one is not read to its end."""

    closes = True


class BodyReader:
    """Reads bodies of at most `limit` bytes, each within `BODY_SECONDS`.

    All bodies have the same time, so the one that was begun first is late first, and one timer serves them all. A
    timer for each body would cost more than reading it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._late_at: dict[Task, float] = {}  # in the order of their deadlines
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, declared: bytes) -> bytes:
        """The body, counted while it streams; `declared` is the Content-Length.

        Raises:
            BodyTooLarge: it is, or says it is, over the limit.
            BodyTooSlow: it took too long.
            Crowded: the bodies that are being read are together more than can be held.
            Disconnected: the client went away.
        """
        digits = declared.lstrip(b"0")
        if digits.isdigit() and (len(digits) > _LONGEST_NUMBER or int(digits) > self._limit):
            raise BodyTooLarge
        task = cast(Task, asyncio.current_task())
        self._watch(task)
        try:
            return await self._read(receive)
        except asyncio.CancelledError as cancelled:
            if _TOO_SLOW not in cancelled.args:
                raise
            task.uncancel()
            raise BodyTooSlow from None
        finally:
            self._late_at.pop(task, None)

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk = message.get("body", b"")
                size += len(chunk)
                self._held += len(chunk)
                if size > self._limit:
                    raise BodyTooLarge
                if self._held > MAX_HELD_BYTES:
                    raise Crowded
                if chunk:
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._held -= size

    def _watch(self, task: Task) -> None:
        loop = task.get_loop()
        late_at = self._late_at[task] = loop.time() + BODY_SECONDS
        if self._timer is None:
            self._timer = loop.call_at(late_at, self._cancel_the_late, loop, late_at)

    def _cancel_the_late(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = None
        if loop.time() > due + GRACE_SECONDS:
            # The receiver was stalled, and what senders have sent meanwhile is still to be read: that is our own
            # trouble, not theirs (P6). They get more time, but only once, so that a slow body has an end.
            self._timer = loop.call_later(GRACE_SECONDS, self._cancel_the_late, loop, math.inf)
            return
        for task, late_at in list(self._late_at.items()):
            if late_at > loop.time():
                self._timer = loop.call_at(late_at, self._cancel_the_late, loop, late_at)
                return
            del self._late_at[task]
            task.cancel(_TOO_SLOW)
