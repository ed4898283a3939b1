"""Answers kept by HTTP's own rules (RFC 9111), by hishel, in Redis: shared by all workers of a key.

Nothing is kept that JobsiteOn does not let be kept: `Cache-Control` says how long, `ETag` and
`Last-Modified` whether it is still so. Guesses, which RFC 9111 allows, are not made: an invoice that
has not changed for a year may change today. Read from the cache, an answer costs no request.
Redis failing costs requests, nothing else. Answers in Redis are as confidential as the events there.
"""

import logging
from typing import TypedDict
from urllib.parse import quote

import httpx
from hishel import AsyncBaseStorage, AsyncRedisStorage, BaseStorage, CacheOptions, RedisStorage
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from app.inbox.inbox import PREFIX
from workers.jobsiteon.calls import resource_of

LONGEST_SECONDS = 3600.0
"""An answer is kept so long at most, whatever it says of itself."""
OPTIONS = CacheOptions(shared=False, supported_methods=["GET"], allow_stale=False)
"""Private: all that is in it was answered to one key, and is for that key."""

# It logs URLs, in which there are ids, and as errors what is none: two workers that keep the same answer.
logging.getLogger("hishel").setLevel(logging.CRITICAL)


class _Kept(TypedDict):
    key_prefix: str
    default_ttl: float


def _kept(key: str) -> _Kept:
    return {"key_prefix": f"{PREFIX}api:cache:{key}", "default_ttl": LONGEST_SECONDS}


def storage(redis: "Redis", key: str) -> RedisStorage:
    """Where the answers to a key are kept."""
    return RedisStorage(redis, **_kept(key))


def async_storage(redis: "AsyncRedis", key: str) -> AsyncRedisStorage:
    """The same place, for asyncio."""
    return AsyncRedisStorage(redis, **_kept(key))


def without_guesses(response: httpx.Response) -> httpx.Response:
    """An answer that does not say how long it is fresh is asked for again each time, or not kept at all."""
    said = response.headers.get("cache-control", "")
    if "max-age" not in said.lower() and "expires" not in response.headers:
        validated = "etag" in response.headers or "last-modified" in response.headers
        added = "no-cache" if validated else "no-store"
        response.headers["cache-control"] = f"{said}, {added}" if said else added
    return response


def stale_keys(entity: str, id: str | None) -> tuple[str, ...]:
    """What is cached under these keys is of no use once an element has changed: itself, and all lists."""
    resource = resource_of(entity)
    if resource is None:
        return ()
    return (resource, f"{resource}/{quote(id, safe='')}") if id else (resource,)


def drop(storage: BaseStorage, *keys: str) -> None:
    """Forgets what is cached."""
    for key in keys:
        for entry in storage.get_entries(key):
            storage.remove_entry(entry.id)


async def async_drop(storage: AsyncBaseStorage, *keys: str) -> None:
    """Forgets what is cached."""
    for key in keys:
        for entry in await storage.get_entries(key):
            await storage.remove_entry(entry.id)
