"""A TCP proxy in front of Redis that does what networks do, and strikes at chosen moments.

It runs in an event loop; what is set on it may be set from another thread.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from app.cli.embedded import HOST
from tests.chaos.wire import Recogniser

CHUNK_BYTES = 65536

Moment = Literal["request seen", "reply withheld", "reply delivered", "reply cut"]
MOMENTS: tuple[Moment, ...] = ("request seen", "reply withheld", "reply delivered")
"""Nothing of the call forwarded; executed, nothing of the reply forwarded; all of it forwarded."""


@dataclass
class Trap:
    """Strikes once, at one moment of one call of a script."""

    call: str
    moment: Moment
    act: Callable[["Link"], None]
    """What is done to the connection or to the process that has it."""
    skip: int = 0
    """Calls to let pass before."""
    sprung: threading.Event = field(default_factory=threading.Event)

    def meets(self, call: str) -> bool:
        """Whether this call is the one to strike at."""
        if call != self.call or self.sprung.is_set():
            return False
        self.skip -= 1
        return self.skip < 0


class Link:
    """One connection of a client, and the one to Redis that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.port: int = client.get_extra_info("peername")[1]
        """The client's own port, by which its process is found."""
        self.recogniser = Recogniser()
        self.trap: Trap | None = None
        """The one that waits for the reply."""

    def reset(self) -> None:
        """Ends both connections as a broken network does: with a reset, and nothing more."""
        for writer in (self.client, self.server):
            if peer := writer.get_extra_info("socket"):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Forwards to a port of the loopback interface, unless told otherwise."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0
        self.trap: Trap | None = None
        self.delay = 0.0
        """Seconds that each reply takes longer."""
        self.cut = 0.0
        """The probability that a reply is cut in the middle, and its connection reset."""
        self.random = random.Random()  # noqa: S311 - seeded by whoever uses `cut`

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends everything."""
        if self._server:
            self._server.close()
        for link in list(self._links):
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def hold(self, held: bool) -> None:
        """A black hole while `held`: nothing passes, nothing is refused. Afterwards all of it passes."""
        if held:
            self._open.clear()
        else:
            self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._links.add(task)
        try:
            await self._serve(reader, writer)
        except OSError:
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the end of the proxy; asyncio would report it as an error of the task
        finally:
            self._links.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        from_redis, to_redis = await asyncio.open_connection(HOST, self._upstream)
        link = Link(writer, to_redis)
        pumps = [
            asyncio.ensure_future(self._requests(link, reader)),
            asyncio.ensure_future(self._replies(link, from_redis)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.close()
            to_redis.close()

    async def _requests(self, link: Link, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._open.wait()
            for call in link.recogniser.calls(chunk):
                if (trap := self.trap) and trap.meets(call):
                    if trap.moment == "request seen":
                        _spring(trap, link)
                        return
                    self.trap, link.trap = None, trap
            link.server.write(chunk)
            await link.server.drain()

    async def _replies(self, link: Link, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._open.wait()
            if (trap := link.trap) and trap.moment == "reply withheld":
                _spring(trap, link)
                return
            cut = (trap is not None and trap.moment == "reply cut") or self.random.random() < self.cut
            link.client.write(chunk[: (len(chunk) + 1) // 2] if cut else chunk)
            await link.client.drain()
            if trap:
                _spring(trap, link)
                return
            if cut:
                close_after(link)
                return


def _spring(trap: Trap, link: Link) -> None:
    trap.act(link)
    trap.sprung.set()


def close_after(link: Link) -> None:
    """Ends a connection after what has been written to it; a reset might overtake it."""
    link.client.close()
    link.server.transport.abort()
