"""The rate limit of a key, shared by all processes and machines through Redis, by the library `limits`.

Documented ("API Security Best Practices"): 100 requests a minute per key. Where JobsiteOn's minute
begins is not, so it holds for every window: a moving window, since fixed ones let twice as many pass
around the edge.
"""

import hashlib
import math
from contextlib import suppress

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis import Redis
from redis.exceptions import RedisError

from app.config.settings import Settings
from app.inbox.inbox import PREFIX
from app.store import connections
from app.store.pools import drop_connections
from workers.jobsiteon.errors import RateLimited

TRAVEL_SECONDS = 1.0
"""How much longer than the window a place stays taken: requests do not travel equally fast."""
REDIS_DOWN_SECONDS = 5.0
LEAST_WAIT_SECONDS = 0.01
REDIS_TIMEOUT_SECONDS = 1.0
"""For one command. A call asks Redis a few times, and has a deadline (`JOBHOOK_API_TIMEOUT`) to keep."""
_PAUSE = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
"""


def connect_briefly(settings: Settings) -> "Redis":
    """A client of Redis that does not keep a call waiting while Redis hangs.

    One retry makes up for a connection that a restarted server has left behind.
    """
    return connections.connect(settings.redis_url, timeout=REDIS_TIMEOUT_SECONDS, retries=1)


def fingerprint(token: bytes) -> str:
    """What tells keys apart without telling the key."""
    return hashlib.sha256(b"jobhook api " + token).hexdigest()[:16]


class _OneClock(RedisStorage):
    """`limits` goes by each machine's own clock; a window that machines share needs one: the server's."""

    storage: "Redis"

    def now(self) -> float:
        """Seconds since 1970 on the Redis server."""
        seconds, microseconds = self.storage.time()
        return seconds + microseconds / 1e6

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Takes places in the window, if there are so many."""
        return bool(self.lua_acquire_moving_window([self.prefixed_key(key)], [self.now(), limit, expiry, amount]))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest place was taken, and how many are."""
        now = self.now()
        window = self.lua_moving_window([self.prefixed_key(key)], [now - expiry, limit])
        return (float(window[0]), window[1]) if window else (now, 0)


class RateLimit:
    """Places in the moving window, one a request."""

    def __init__(self, settings: Settings, key: str) -> None:
        redis = connect_briefly(settings)
        self._redis = redis
        self._lengthen = redis.register_script(_PAUSE)
        self._key = key
        self._pause_key = f"{PREFIX}api:pause:{key}"
        # The URL tells `limits` the kind of server, no more: the connections are there, also those through Sentinel.
        self._storage = _OneClock("redis://", connection_pool=redis.connection_pool, key_prefix=f"{PREFIX}api")
        self._window = MovingWindowRateLimiter(self._storage)
        seconds = math.ceil(settings.api_rate_window + TRAVEL_SECONDS)  # the library counts in whole ones
        self._item = RateLimitItemPerSecond(settings.api_rate_limit, seconds, namespace="rate")

    def wait(self, *, take: bool = True) -> float:
        """Takes a place and returns 0; or takes none and returns the seconds until there may be one.

        With `take=False` it only tells whether there is a place at the moment.

        Raises:
            RateLimited: Redis does not answer. Nothing is sent uncounted; without Redis the worker could
                not record what it has done either.
        """
        try:
            if (paused := self._redis.pttl(self._pause_key)) > 0:
                return paused / 1000
            if (self._window.hit if take else self._window.test)(self._item, self._key):
                return 0.0
            free_at = self._window.get_window_stats(self._item, self._key).reset_time
            return max(free_at - self._storage.now(), LEAST_WAIT_SECONDS)
        except RedisError:
            raise RateLimited("Redis, which counts the API's requests, does not answer.", REDIS_DOWN_SECONDS) from None

    def pause(self, seconds: float) -> None:
        """JobsiteOn has answered 429: nobody sends anything for so long, or longer if another 429 said so.

        Others may use the same key and not our count; one 429 tells all workers, not each its own.
        """
        with suppress(RedisError):  # the next `wait` says what is to be said
            self._lengthen(keys=[self._pause_key], args=[str(max(1, int(seconds * 1000)))])

    def close(self) -> None:
        """Closes the connections to Redis."""
        self._redis.close()

    def drop(self) -> None:
        """The same, whatever is under way on them."""
        drop_connections(self._redis)
