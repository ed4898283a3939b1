"""One try of a call, as far as it is the same with and without asyncio."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
import orjson
import structlog

from app import __version__
from app.config.settings import Settings
from workers.jobsiteon.answers import Answer, interpret
from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import BadResponse, Invalid, Unreachable
from workers.jobsiteon.retries import Deadline

MOST_BYTES = 16 * 1024**2
"""Of an answer, decompressed: far above any page of a list, far below what hurts a worker."""
MOST_REDIRECTS = 3
MOST_CONNECTIONS = 10

POOL = httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_CONNECTIONS)

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

log = structlog.stdlib.get_logger(__name__)


@dataclass
class Received:
    """An answer while it comes in."""

    call: Call
    deadline: Deadline
    response: httpx.Response
    body: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, chunk: bytes) -> None:
        """Takes a piece of the body.

        Raises:
            Unreachable: the time is over.
            BadResponse: the body is too large.
        """
        self.body += chunk
        if self.deadline.left < 0:
            raise Unreachable(f"{self.call}: the answer takes too long.")
        if len(self.body) > MOST_BYTES:
            raise BadResponse(f"{self.call}: the answer is too large.", self.response.status_code)

    @property
    def answer(self) -> Answer:
        """What it means, once it is complete; see `interpret`."""
        return interpret(self.call, self.response.status_code, self.response.headers, bytes(self.body))


def options(settings: Settings) -> dict[str, Any]:
    """How both kinds of httpx client are made."""
    return {
        "base_url": settings.api_url,
        "headers": {"accept": "application/json", "user-agent": f"jobhook/{__version__}"},
        "max_redirects": MOST_REDIRECTS,
        "trust_env": False,
    }


def request(client: httpx.Client | httpx.AsyncClient, call: Call, deadline: Deadline) -> httpx.Request:
    """The request of a call, without the key, which is put in where it is sent.

    Raises:
        Unreachable: the time is over.
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
            content=None if call.data is None else orjson.dumps(call.data),
            headers=headers,
            extensions={"caching": {"key": call.cache_key}, "deadline": deadline},
        )
    except httpx.InvalidURL:
        raise BadResponse(f"{call}: the next page has no valid URL.") from None


@contextmanager
def one_try(call: Call) -> Iterator[dict[str, Any]]:
    """Logs a try with what is put into the dictionary, and turns what goes wrong into an API error.

    No cause is kept: the messages of httpx and its like quote URLs, headers and bodies.
    """
    begun = monotonic()
    seen: dict[str, Any] = {"status": None}
    try:
        yield seen
    except _NOT_SENT as error:
        raise Unreachable(f"{call}: no connection ({type(error).__name__}).", sent=False) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
        raise Invalid(f"{call}: this cannot be sent by HTTP.") from None
    except (httpx.DecodingError, httpx.TooManyRedirects, httpx.InvalidURL):
        raise BadResponse(f"{call}: the answer makes no sense.") from None
    except (httpx.TransportError, TimeoutError) as error:
        raise Unreachable(f"{call}: no complete answer ({type(error).__name__}).") from None
    finally:
        ms = round((monotonic() - begun) * 1000, 1)
        log.debug("api request", method=call.method, path=call.shown_path, ms=ms, **seen)


def seen(response: httpx.Response) -> dict[str, Any]:
    """What the log tells of an answer."""
    return {"status": response.status_code, "cached": bool(response.extensions.get("caching", {}).get("from_cache"))}
