"""The proxy between the processes under fault and Redis: it strikes at chosen moments of chosen calls."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from tests.chaos.wire import Recogniser
from tests.support import proxy

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


class Link(proxy.Link):
    """One connection of a client, and the one to Redis that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        super().__init__(client, server)
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


class Proxy(proxy.Proxy[Link]):
    """Forwards to a port of the loopback interface, unless told otherwise."""

    kind = Link

    def __init__(self, upstream: int) -> None:
        super().__init__(upstream)
        self.trap: Trap | None = None
        self.cut = 0.0
        """The probability that a reply is cut in the middle, and its connection reset."""
        self.random = random.Random()  # noqa: S311 - seeded by whoever uses `cut`

    async def requests(self, link: Link, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            for call in link.recogniser.calls(chunk):
                if (trap := self.trap) and trap.meets(call):
                    if trap.moment == "request seen":
                        _spring(trap, link)
                        return
                    self.trap, link.trap = None, trap
            link.server.write(chunk)
            await link.server.drain()

    async def replies(self, link: Link, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
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
