"""A load generator: keep-alive connections that each send one prepared request after another."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import uvloop

from app.delivery.samples import sample
from app.delivery.signature import sign
from app.receiver.endpoint import PATH

CONNECTIONS = 32


@dataclass
class Load:
    """What came of it."""

    seconds: float = 0.0
    statuses: Counter[bytes] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    """Seconds, one a request."""


def requests(number: int, key: bytes) -> list[bytes]:
    """Signed deliveries of distinct events, about 700 bytes of body each, ready to be sent."""
    padding = b"50 gallon, gas. " + b"x" * 240
    return [_request(key, sample("job.created").replace(b"50 gallon, gas", padding)) for _ in range(number)]


def _request(key: bytes, body: bytes) -> bytes:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: JobsiteOn-Webhooks\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"
        f"X-Signature: {sign(key, body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, prepared: Iterator[bytes], load: Load, pause: float) -> None:
        self._prepared = prepared
        self._load = load
        self._pause = pause
        self._buffer = b""
        self._sent = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._send()

    def _send(self) -> None:
        request = next(self._prepared, None)
        if request is None:
            self._transport.close()
            return
        self._sent = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        self._load.latencies.append(perf_counter() - self._sent)
        self._load.statuses[head[9:12]] += 1
        self._buffer = b""
        if self._pause:
            asyncio.get_running_loop().call_later(self._pause, self._send)
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def run(port: int, prepared: Sequence[bytes], connections: int = CONNECTIONS, per_second: float | None = None) -> Load:
    """Sends all requests, as fast as they are answered or at about so many a second."""

    async def session() -> Load:
        load = Load()
        waiting = iter(prepared)
        pause = connections / per_second if per_second else 0.0
        loop = asyncio.get_running_loop()
        begun = perf_counter()
        opened = [
            await loop.create_connection(lambda: _Connection(waiting, load, pause), "127.0.0.1", port)
            for _ in range(connections)
        ]
        await asyncio.gather(*(connection.done for _, connection in opened))
        load.seconds = perf_counter() - begun
        return load

    return uvloop.run(session())
