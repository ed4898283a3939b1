"""What JobsiteOn's API has answered to a handler, as far as its next run may need it.

The rate limit may let through less than a handler asks for. Its next run makes the same calls again, and would use up
the next minute's places for the same answers, for ever. So it is given them from here, and goes on where the last one
stopped:

- What was *read* is kept from a run that the rate limit has cut short to the next, which continues it. A handler that
  is run again for another reason reads anew: it may wait for just that change.
- What was *written* is remembered as a step is: at once, and for as long as the event is. It is not written again,
  whatever the handler is run again for.
"""

import zlib
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import orjson
import structlog
from redis.exceptions import RedisError

from app.errors import describe
from app.inbox.inbox import PREFIX, Inbox
from app.inbox.record import STEP_OF, Record
from app.store.server import has_room

MOST_READ_BYTES = 8 * 1024**2
"""Of a run, before they are compressed."""
MOST_WRITTEN_BYTES = 64 * 1024
"""Of the answer to one write. It is part of the event's record."""

log = structlog.stdlib.get_logger(__name__)


class Read(NamedTuple):
    """An answer to a GET, as it came."""

    body: bytes
    links: list[str]
    """Its headers `Link`."""


class Answered:
    """The answers to a handler in one run."""

    def __init__(self, inbox: Inbox, record: Record, handler: str, attempt: int) -> None:
        self._inbox = inbox
        self._record = record
        self._handler = handler
        self._attempt = attempt
        self._key = f"{PREFIX}answers:{record.id}"
        self._reads: dict[str, Read] = {}
        self._bytes = 0
        self._may_continue = handler in record.tries
        self._loading = Lock()  # async calls come from several threads
        self._was_loaded = False
        self.was_cut = False
        """Whether the rate limit has refused a call of this run."""
        self.number = 0
        """Answers that came in this run."""

    @property
    def is_too_much(self) -> bool:
        """Whether there are too many to be kept."""
        return self._bytes > MOST_READ_BYTES

    def read(self, key: str) -> Read | None:
        """What a read was answered before, in a run that this one continues."""
        with self._loading:
            if self._may_continue:
                self._may_continue = False
                self._load()
        return self._reads.get(key)

    def note_read(self, key: str, read: Read) -> None:
        """A read has been answered."""
        self.number += 1
        self._bytes += len(read.body)
        if self.is_too_much:
            self._reads.clear()
        else:
            self._reads[key] = read

    def written(self, name: str) -> str | None:
        """What a write was answered in whatever run before."""
        result: str | None = self._steps.get(self._handler + STEP_OF + name)
        return result

    def note_written(self, name: str, answer: str) -> None:
        """A write has been answered. Should that be impossible to note, a later run writes again, with the same key."""
        self.number += 1
        stored = orjson.dumps(answer)
        reason = "it is too large"
        if len(stored) <= MOST_WRITTEN_BYTES:
            try:
                self._inbox.try_to_record_step(
                    self._record.id, self._record.token, self._handler + STEP_OF + name, stored
                )
            except RedisError as error:
                reason = describe(error)["error"]
            else:
                return
        log.warning("answer to a write not remembered", id=self._record.id, handler=self._handler, reason=reason)

    def end(self, *, is_continued: bool) -> None:
        """The run has ended; `is_continued` if it has failed and uses up no attempt."""
        try:
            if is_continued and self.was_cut:
                self._keep()
            elif self._was_loaded:
                self._inbox.redis.hdel(self._key, self._handler)
        except RedisError as error:
            log.warning("answers not kept", id=self._record.id, handler=self._handler, **describe(error))

    @cached_property
    def _steps(self) -> dict[str, Any]:
        return dict(self._record.steps)

    def _load(self) -> None:
        try:
            stored: Any = self._inbox.redis.hget(self._key, self._handler)
            if not stored:
                return
            self._was_loaded = True
            attempt, reads = orjson.loads(zlib.decompress(stored))
            if attempt == self._attempt:
                self._reads = {key: Read(body.encode("latin-1"), links) for key, (body, links) in reads.items()}
        except (RedisError, zlib.error, ValueError) as error:
            log.warning("answers cannot be read", id=self._record.id, handler=self._handler, **describe(error))
        self._bytes = sum(len(read.body) for read in self._reads.values())

    def _keep(self) -> None:
        if self.is_too_much or not has_room(self._inbox.redis):
            reason = "they are too many" if self.is_too_much else "Redis is nearly full"
            log.warning("answers not kept", id=self._record.id, handler=self._handler, reason=reason)
            return
        reads = {key: (read.body.decode("latin-1"), read.links) for key, read in self._reads.items()}
        stored = zlib.compress(orjson.dumps([self._attempt, reads]), level=1)
        with self._inbox.redis.pipeline() as pipeline:
            pipeline.hset(self._key, self._handler, stored)
            pipeline.expire(self._key, int(self._inbox.settings.retry_for))
            pipeline.execute()
