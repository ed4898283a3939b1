"""Answers kept by HTTP's own rules (RFC 9111) in Redis, shared by all workers of a key.

Nothing is kept that JobsiteOn does not let be kept: `Cache-Control` or `Expires` says how long an answer is
fresh, `ETag` and `Last-Modified` make it worth asking about. Guesses, which RFC 9111 allows, are not made: an
invoice that has not changed for a year may change today. Read from the cache, an answer costs no request.

The inbox lives in the same Redis, so the cache is small by its shape: `SLOTS` keys for each API key, chosen by
the URL's hash, of `MOST_BYTES` each at most. A newer answer takes the slot of an older one. Lists, large
answers and, while Redis is nearly full, all answers are not kept.

Each resource has a generation, a number. An answer is kept under the generation that was read *before* its
request was sent, and read only while the resource still has it: one INCR makes all of a resource stale, also
the answers that are under way at that moment.

Redis failing costs requests, nothing else. Answers in Redis are as confidential as the events there.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson
import structlog
from redis.exceptions import RedisError

from app.config.settings import Settings
from app.inbox.inbox import PREFIX
from app.store.pools import drop_connections
from app.store.server import has_room
from workers.jobsiteon.calls import Call, resource_of
from workers.jobsiteon.limits import connect_briefly

LONGEST_SECONDS = 3600
"""An answer is kept so long at most, whatever it says of itself."""
GENERATION_SECONDS = 24 * 3600
"""Far longer than any answer kept: a generation that began again at 0 would make an old answer fresh."""
SLOTS = 2048
MOST_BYTES = 16 * 1024
"""Of one answer: several times an invoice with its lines. With `SLOTS`: 32 MiB for each API key."""

_DIRECTIVE = re.compile(r'([^\s,="]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?')
_MAX_DIGITS = 9

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Kept:
    """An answer from the cache."""

    body: bytes
    fresh: bool
    fresh_ms: int
    validators: dict[str, str]


@dataclass(frozen=True)
class Found:
    """What the cache knows before a request is sent."""

    url: str
    generation: int | None
    """That of the resource; None if the answer is not to be kept: a write, a list, or Redis did not answer."""
    kept: Kept | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """The headers that ask whether what is kept is still so."""
        return self.kept.validators if self.kept else {}


class Cache:
    """The cache of one API key. Thread-safe; raises nothing: without Redis it is empty."""

    def __init__(self, settings: Settings, key: str) -> None:
        self._redis = connect_briefly(settings)
        self._entries = f"{PREFIX}api:cache:{key}:"
        self._generations = f"{PREFIX}api:generation:{key}:"
        self._missed: set[str] = set()

    def look(self, call: Call, request: httpx.Request) -> Found:
        """What there is for a request, and what is needed to keep its answer: one round trip."""
        url = str(request.url)
        if not call.is_safe or call.lists:
            return Found(url, None)
        try:
            for resource in tuple(self._missed):
                self._advance(resource)
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.get(self._generations + call.resource)
                pipeline.get(self._entry(url))
                pipeline.pttl(self._entry(url))
                generation, entry, left_ms = pipeline.execute()
        except RedisError:
            return Found(url, None)
        generation = int(generation or 0)
        return Found(url, generation, _read(entry, url, generation, left_ms) if entry else None)

    def keep(self, found: Found, headers: httpx.Headers, body: bytes) -> None:
        """Keeps a valid answer, if it may and can be kept."""
        fresh_ms, validators = _freshness(headers), _validators(headers)
        self._keep(found, body, fresh_ms, validators)

    def renew(self, found: Found, headers: httpx.Headers) -> bytes:
        """The body of what was kept, which JobsiteOn says is still so (304)."""
        assert found.kept is not None  # noqa: S101 - for the type checker
        kept = found.kept
        told = "cache-control" in headers or "expires" in headers
        fresh_ms = _freshness(headers) if told else kept.fresh_ms
        self._keep(found, kept.body, fresh_ms, kept.validators | _validators(headers))
        return kept.body

    def invalidate(self, entity: str) -> None:
        """Makes all that is kept of a resource stale. Should Redis not answer, it is done before the next reading."""
        resource = resource_of(entity)
        if resource is None:
            return
        try:
            self._advance(resource)
        except RedisError:
            self._missed.add(resource)
            log.warning("api cache not invalidated", resource=resource, reason="Redis does not answer")

    def close(self) -> None:
        """Closes the connections to Redis."""
        self._redis.close()

    def drop(self) -> None:
        """The same, whatever is under way on them."""
        drop_connections(self._redis)

    def _advance(self, resource: str) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.incr(self._generations + resource)
            pipeline.expire(self._generations + resource, GENERATION_SECONDS)
            pipeline.execute()
        self._missed.discard(resource)

    def _keep(self, found: Found, body: bytes, fresh_ms: int | None, validators: dict[str, str]) -> None:
        kept_ms = LONGEST_SECONDS * 1000 if validators else fresh_ms
        if found.generation is None or fresh_ms is None or not kept_ms:
            return
        about = {
            "url": found.url,
            "generation": found.generation,
            "fresh_ms": fresh_ms,
            "kept_ms": kept_ms,
            "validators": validators,
        }
        entry = orjson.dumps(about) + b"\n" + body
        if len(entry) > MOST_BYTES:
            return
        try:
            if has_room(self._redis):
                self._redis.set(self._entry(found.url), entry, px=kept_ms)
        except RedisError:
            return

    def _entry(self, url: str) -> str:
        digest = hashlib.sha256(url.encode()).digest()
        return f"{self._entries}{int.from_bytes(digest[:4], 'big') % SLOTS}"


def _read(entry: bytes, url: str, generation: int, left_ms: int) -> Kept | None:
    """What a slot holds, if it is the answer that is looked for. Its age goes by Redis's clock alone."""
    head, _, body = entry.partition(b"\n")
    about = orjson.loads(head)
    if about["url"] != url or about["generation"] != generation:
        return None
    age_ms = about["kept_ms"] - left_ms
    return Kept(body, age_ms < about["fresh_ms"], about["fresh_ms"], about["validators"])


def _validators(headers: httpx.Headers) -> dict[str, str]:
    asked_by = {"etag": "if-none-match", "last-modified": "if-modified-since"}
    said = {condition: headers.get(name, "") for name, condition in asked_by.items()}
    return {condition: value for condition, value in said.items() if value and value.isascii() and value.isprintable()}


def _freshness(headers: httpx.Headers) -> int | None:
    """Milliseconds for which an answer is fresh (RFC 9111, 4.2), by what it says; None if it must not be kept."""
    said = _DIRECTIVE.findall(",".join(headers.get_list("cache-control")).lower())
    directives = {name for name, _ in said}
    if "no-store" in directives or "*" in headers.get("vary", ""):
        return None
    if "no-cache" in directives:
        return 0
    ages = [_seconds(value) for name, value in said if name == "max-age"]
    seconds = min(ages) if ages else _until_expiry(headers)
    age = _seconds(headers["age"]) if "age" in headers else 0
    return max(0, min(seconds - age, LONGEST_SECONDS)) * 1000


def _until_expiry(headers: httpx.Headers) -> int:
    date: Callable[[str], Any] = parsedate_to_datetime
    try:
        return int((date(headers["expires"]) - date(headers["date"])).total_seconds())
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return 0


def _seconds(value: str) -> int:
    """0 for what is no number: an answer that cannot say how fresh it is, is not."""
    value = value.strip().strip('"')
    return int(value[:_MAX_DIGITS]) if value.isascii() and value.isdigit() else 0
