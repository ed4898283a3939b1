"""The keys that deliveries are verified with: which are in force, and how much each is used.

The endpoint takes `keys.ring` once for a delivery: verifier and names, of one time. When keys change, another ring
takes its place. What each key has verified is counted in memory, and told to Redis and to the metrics off the answer's
way, by a thread of its own: one that waits for Redis keeps no new key from coming into force.
"""

import threading
import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from app.config.keys import SigningKey, signing_keys
from app.config.settings import Settings
from app.delivery.signature import Lookup, Verifier
from app.errors import describe
from app.inbox.keys import Use, tell
from app.ops.keys import DAY_SECONDS, DUE_DAYS, OVERDUE_DAYS
from app.store.connections import connect

TELL_SECONDS = 1.0
"""Between two notes in Redis of what has been verified."""
HOLD_SECONDS = 15.0
"""The same while there is nothing new: that the keys are still held."""
ANSWER_SECONDS = 1.0
AGE_SECONDS = 86400.0
"""How often the log speaks of the age of the current key."""

log = structlog.stdlib.get_logger(__name__)


class Counted:
    """A key in force, and what it has verified: that is written by the event loop, and told by another thread."""

    __slots__ = ("at", "key", "measured", "told", "verified")

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.verified = 0
        """Deliveries, since it came into force."""
        self.at = 0.0
        """When the last of them came, by the monotonic clock."""
        self.measured = 0
        """Those of them that are in the metrics."""
        self.told = 0
        """Those of them that Redis knows of."""


class Ring:
    """The keys of one time."""

    __slots__ = ("_verify", "keys")

    def __init__(self, settings: Settings) -> None:
        self.keys = tuple(map(Counted, signing_keys(settings)))
        self._verify = Verifier(settings.signing_keys, settings.signature_scheme).verify

    def verify(self, headers: Lookup, body: bytes, method: str, path: bytes, query: bytes) -> SigningKey:
        """The key that signed a request.

        Raises:
            BadSignature: none of them has.
        """
        counted = self.keys[self._verify(headers, body, method, path, query)]
        counted.verified += 1
        counted.at = time.monotonic()
        return counted.key


class Keys:
    """The ring in force. `count` is told the role of a key, and the number of deliveries that it has verified."""

    def __init__(self, settings: Settings, count: Callable[[str, int], None]) -> None:
        self.ring = Ring(settings)
        self._retired: list[Counted] = []
        """Keys of rings before, of which not everything is told."""
        self._count = count
        self._redis = connect(settings.redis_url, timeout=ANSWER_SECONDS, retries=0)
        self._change = threading.Lock()
        self._hold_at = 0.0
        self._age_at = 0.0
        self._is_told = True

    def use(self, settings: Settings) -> None:
        """Puts the keys of other settings into force."""
        ring = Ring(settings)
        with self._change:
            self._retired += self.ring.keys
            self.ring = ring
            self._hold_at = 0.0

    def close(self) -> None:
        """Tells what is new, and closes the connection."""
        self.tell()
        self._redis.close()

    def tell(self) -> None:
        """Tells the metrics and Redis what is new. For one thread at a time; it may have to wait for Redis."""
        now = time.monotonic()
        with self._change:
            ring = self.ring
            news = [(counted, counted.verified) for counted in (*ring.keys, *self._retired)]
            is_time = now >= self._hold_at
        for counted, verified in news:
            self._count(counted.key.role, verified - counted.measured)
            counted.measured = verified
        if not is_time and all(counted.told == verified for counted, verified in news):
            return
        uses = [
            Use(one.key.fingerprint, verified - one.told, now - one.at, is_held=one in ring.keys)
            for one, verified in news
        ]
        try:
            since = tell(self._redis, uses)
        except RedisError as error:  # the next note has it too
            self._redis.connection_pool.disconnect()
            if self._is_told:
                log.warning("use of keys not noted", **describe(error))
            self._is_told = False
            return
        self._is_told = True
        for counted, verified in news:
            counted.told = verified
        with self._change:
            if ring is self.ring:
                self._hold_at = now + HOLD_SECONDS
            self._retired = [counted for counted in self._retired if counted.told < counted.verified]
        if now >= self._age_at:
            self._age_at = now + AGE_SECONDS
            _say_age(since[0])


def _say_age(since: float) -> None:
    days = int((time.time() - since) / DAY_SECONDS)
    if days >= OVERDUE_DAYS:
        log.error("the current key is overdue for rotation", days=days, limit=OVERDUE_DAYS)
    elif days >= DUE_DAYS:
        log.warning("the current key is soon due for rotation", days=days, limit=OVERDUE_DAYS)
