"""One try of a call, as far as it is the same with and without asyncio."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.cookiejar import CookieJar
from time import monotonic
from typing import Any

import httpx
import orjson
import structlog

from app import __version__
from app.config.settings import Settings
from workers.jobsiteon.answers import Answer, interpret
from workers.jobsiteon.cache import Cache, Found
from workers.jobsiteon.calls import Call
from workers.jobsiteon.coding import ACCEPTED, Decoder
from workers.jobsiteon.errors import ApiError, BadResponse, Invalid, Unreachable
from workers.jobsiteon.retries import Deadline

MOST_BYTES = 16 * 1024**2
"""Of an answer, decompressed: far above any page of a list, far below what hurts a worker."""
MOST_REDIRECTS = 3
MOST_CONNECTIONS = 10

POOL = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS)

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

log = structlog.stdlib.get_logger(__name__)


class NoCookies(CookieJar):
    """Takes none. A cookie that came with one answer would change every later request of all handlers."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Leaves the answer's cookies where they are."""


class Received:
    """An answer while it comes in, as the bytes on the wire."""

    def __init__(self, call: Call, deadline: Deadline, response: httpx.Response) -> None:
        """Begins an answer.

        Raises:
            BadResponse: its body has a coding that was not asked for.
        """
        self._call = call
        self._deadline = deadline
        self._response = response
        # What an error's body says is not read: its status is enough, whatever its coding.
        codings = response.headers.get("content-encoding", "") if response.is_success else ""
        try:
            self._decoder = Decoder(codings, MOST_BYTES)
        except ValueError:
            raise self._bad("has a coding that was not asked for") from None

    def add(self, piece: bytes) -> None:
        """Takes a piece of the body.

        Raises:
            Unreachable: the time is over.
            BadResponse: the body is too large, or not in the coding it is said to be in.
        """
        try:
            self._decoder.add(piece)
        except ValueError:
            raise self._bad("is not in its coding") from None
        if self._deadline.left < 0:
            raise Unreachable(f"{self._call}: the answer takes too long.")
        if self._decoder.is_too_large:
            raise self._bad("is too large")

    def answer(self, cache: Cache, found: Found) -> Answer:
        """What it means, once it is complete; see `interpret`. It is kept if it may be."""
        response, status = self._response, self._response.status_code
        if status == httpx.codes.NOT_MODIFIED and found.kept and not response.history:
            body = cache.renew(found, response.headers)
            return interpret(self._call, httpx.codes.OK, response.headers, body)
        try:
            body = self._decoder.end()
        except ValueError:
            raise self._bad("is cut off") from None
        answer = interpret(self._call, status, response.headers, body)
        if status == httpx.codes.OK and not response.history:
            cache.keep(found, response.headers, body)
        return answer

    def _bad(self, what: str) -> BadResponse:
        return BadResponse(f"{self._call}: the answer {what}.", self._response.status_code)


def kept_answer(call: Call, found: Found) -> Answer | None:
    """The answer from the cache, if it is there and fresh."""
    if found.kept is None or not found.kept.fresh:
        return None
    return interpret(call, httpx.codes.OK, httpx.Headers(), found.kept.body)


def options(settings: Settings) -> dict[str, Any]:
    """How both kinds of httpx client are made."""
    return {
        "base_url": settings.api_url,
        "headers": {
            "accept": "application/json",
            "accept-encoding": ACCEPTED,
            "user-agent": f"jobhook/{__version__}",
        },
        "cookies": NoCookies(),
        "max_redirects": MOST_REDIRECTS,
        "trust_env": False,
    }


def content(data: Any, *, sort_keys: bool = False) -> bytes:
    """Data as JSON; integers of any size stay what they are.

    Raises:
        Invalid: it has something that JSON cannot carry.
    """
    try:
        return orjson.dumps(data, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:  # also for integers beyond 64 bits
        pass
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys)
        return text.encode()
    except (TypeError, ValueError, RecursionError):
        raise Invalid("The data cannot be written as JSON.") from None


def write(call: Call, write_key: Any) -> Call:
    """A write with the idempotency key that the running step has for it, unless one was given.

    Raises:
        Invalid: the data cannot be written as JSON.
    """
    canonical = content(call.data, sort_keys=True)
    return call if call.idempotency_key is not None else replace(call, idempotency_key=write_key(canonical))


def request(client: httpx.Client | httpx.AsyncClient, call: Call, deadline: Deadline) -> httpx.Request:
    """The request of a call, without the key, which is put in where it is sent.

    Raises:
        Unreachable: the time is over.
        Invalid: a parameter, the data or the idempotency key cannot be sent.
        BadResponse: the URL of the next page is none.
    """
    if deadline.left <= 0:
        raise Unreachable(f"{call}: no time left to send it.", sent=False)
    headers = {}
    if call.data is not None:
        headers["content-type"] = "application/json"
    if call.idempotency_key is not None:
        headers["idempotency-key"] = call.idempotency_key
    try:
        return client.build_request(
            call.method,
            call.url or call.path,
            params=dict(call.params) or None,
            content=None if call.data is None else content(call.data),
            headers=headers,
            extensions={"deadline": deadline},
        )
    except httpx.InvalidURL:
        raise BadResponse(f"{call}: the next page has no valid URL.") from None
    except (ValueError, TypeError, AttributeError):  # a lone surrogate, `é` in a header, a key that is no text
        raise Invalid(f"{call}: a parameter or the idempotency key cannot be sent by HTTP.") from None


@contextmanager
def one_try(call: Call) -> Iterator[dict[str, Any]]:
    """Logs a try with what is put into the dictionary, and turns what goes wrong into an API error.

    No cause is kept: the messages of httpx and its like quote URLs, headers and bodies.
    """
    begun = monotonic()
    seen: dict[str, Any] = {"status": None, "cached": False}
    try:
        yield seen
    except ApiError:
        raise
    except _NOT_SENT as error:
        raise Unreachable(f"{call}: no connection ({type(error).__name__}).", sent=False) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
        raise Invalid(f"{call}: this cannot be sent by HTTP.") from None
    except (httpx.TransportError, TimeoutError) as error:
        raise Unreachable(f"{call}: no complete answer ({type(error).__name__}).") from None
    except Exception as error:  # noqa: BLE001 - the last of the kinds
        # httpx and what is below it fail on some answers in ways that they do not document, such as ValueError.
        raise BadResponse(f"{call}: the answer makes no sense ({type(error).__name__}).") from None
    finally:
        ms = round((monotonic() - begun) * 1000, 1)
        log.debug("api request", method=call.method, path=call.shown_path, ms=ms, **seen)
