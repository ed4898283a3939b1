"""What every request passes when it really leaves; a cached answer does not come here.

Here alone the key is put in, and only into what goes to JobsiteOn's own address: neither a redirect
nor the URL of a next page takes it elsewhere, and the cache does not see it.

A place of the rate limit is taken when there is a connection and nothing is left to do but to send: while
a request waits for one of the pool's connections, or for a server that does not accept any, others may send.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from time import monotonic
from typing import Any

import httpx

from app.config.settings import Settings
from app.errors import ConfigError
from workers.jobsiteon.answers import UNSAID_RETRY_AFTER_SECONDS, retry_after
from workers.jobsiteon.errors import BadResponse, RateLimited
from workers.jobsiteon.limits import RateLimit, fingerprint
from workers.jobsiteon.retries import SHORT_WAIT_SECONDS, Deadline

CONNECT_SECONDS = 3.0
READ_SECONDS = 8.0
"""Between two pieces of an answer. Under the default of the whole call, so that a try may follow.

Without asyncio, headers that come byte by byte are not measured against the deadline of the call: the
handler's own time limit ends that. The body is.
"""
_CONNECTED = ".send_request_headers.started"
"""How the event of httpcore ends that comes between having a connection and sending."""
_SENDABLE = re.compile(rb"[\x21-\x7e]+")


class Departures:
    """Address, rate limit and key of all requests."""

    def __init__(self, settings: Settings) -> None:
        self._home = _address(httpx.URL(settings.api_url))
        self._limit = f"{settings.api_rate_limit} requests in {settings.api_rate_window:g} s"
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """From now on, requests are sent with the key of these settings, and counted as its requests.

        Raises:
            ConfigError: the key cannot be sent in a header. The one before stays.
        """
        token = settings.signing_keys[0]
        if settings.api_token is not None:
            token = settings.api_token.get_secret_value().encode("utf-8", "surrogateescape")
        if not _SENDABLE.fullmatch(token):
            raise ConfigError("JOBSITEON_API_TOKEN: has characters that no HTTP header can carry")
        self.key = fingerprint(token)
        self._rate = RateLimit(settings, self.key)
        self._authorization = (b"Authorization", b"Bearer " + token)

    def check(self, request: httpx.Request) -> Iterator[float]:
        """Seconds to sleep, again and again, until a connection is worth having: there is a place to be taken.

        Raises:
            BadResponse: the request would go elsewhere.
            RateLimited: it would have to wait too long.
        """
        if _address(request.url) != self._home:
            raise BadResponse("JobsiteOn's answer leads to another address, or to plain HTTP: not followed.")
        return self._waits(request, take=False)

    def take(self, request: httpx.Request) -> Iterator[float]:
        """Seconds to sleep, again and again, until a place is taken and the request may leave.

        Raises:
            RateLimited: it would have to wait too long.
        """
        return self._waits(request, take=True)

    def _waits(self, request: httpx.Request, *, take: bool) -> Iterator[float]:
        deadline: Deadline = request.extensions["deadline"]
        until = monotonic() + min(SHORT_WAIT_SECONDS, deadline.left)
        while seconds := self._rate.wait(take=take):
            if monotonic() + seconds > until:
                raise RateLimited(f"The rate limit of {self._limit} is used up.", seconds)
            yield seconds

    def outgoing(self, request: httpx.Request, trace: Any) -> httpx.Request:
        """The request as it is sent: another object, so that the key stays with it."""
        left = max(request.extensions["deadline"].left, 0.001)
        connect, read = min(CONNECT_SECONDS, left), min(READ_SECONDS, left)
        timeout = {"connect": connect, "read": read, "write": read, "pool": left}
        return httpx.Request(
            request.method,
            request.url,
            headers=[*request.headers.raw, self._authorization],
            stream=request.stream,
            extensions={**request.extensions, "timeout": timeout, "trace": trace},
        )

    def incoming(self, response: httpx.Response) -> httpx.Response:
        """The answer. A 429 is told to all workers."""
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            seconds = retry_after(response.headers)
            self._rate.pause(UNSAID_RETRY_AFTER_SECONDS if seconds is None else seconds)
        return response

    def close(self) -> None:
        """Closes the connections to Redis."""
        self._rate.close()


def _address(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class Wire(httpx.BaseTransport):
    """Sends, for `httpx.Client`."""

    def __init__(self, departures: Departures, limits: httpx.Limits) -> None:
        self._departures = departures
        self._inner = httpx.HTTPTransport(limits=limits)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Connects, waits for a place, sends."""

        def trace(event: str, _: object) -> None:
            if event.endswith(_CONNECTED):
                for seconds in self._departures.take(request):
                    time.sleep(seconds)

        for seconds in self._departures.check(request):
            time.sleep(seconds)
        return self._departures.incoming(self._inner.handle_request(self._departures.outgoing(request, trace)))

    def close(self) -> None:
        """Closes all connections."""
        self._inner.close()


class AsyncWire(httpx.AsyncBaseTransport):
    """Sends, for `httpx.AsyncClient`. The count in Redis is asked for in a thread: one way of counting."""

    def __init__(self, departures: Departures, limits: httpx.Limits) -> None:
        self._departures = departures
        self._inner = httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Connects, waits for a place, sends."""

        async def trace(event: str, _: object) -> None:
            if event.endswith(_CONNECTED):
                await _sleep_through(self._departures.take(request))

        await _sleep_through(self._departures.check(request))
        response = await self._inner.handle_async_request(self._departures.outgoing(request, trace))
        return await asyncio.to_thread(self._departures.incoming, response)

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._inner.aclose()


async def _sleep_through(waits: Iterator[float]) -> None:
    while (seconds := await asyncio.to_thread(next, waits, None)) is not None:  # noqa: ASYNC110 - Redis sends no event
        await asyncio.sleep(seconds)
