"""A TCP proxy in front of Redis that does what networks do: it is slow, forgets connections, and is a black hole.

It runs in an event loop; what is set on it may be set from another thread.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Generic, Self, TypeVar

from app.cli.embedded import HOST

CHUNK_BYTES = 65536


class Link:
    """One connection of a client, and the one to Redis that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.heard = asyncio.get_running_loop().time()
        """When the last bytes passed, in either direction."""
        self.forgotten = False


L = TypeVar("L", bound=Link)


class Proxy(Generic[L]):
    """Forwards to a port of the loopback interface, unless told otherwise."""

    kind: type[L] = Link  # type: ignore[assignment]
    """What is remembered of a connection."""

    def __init__(self, upstream: int, *, delay: float = 0.0, forgets_after: float | None = None) -> None:
        self.upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0
        self.delay = delay
        """Seconds that each reply takes longer: what a round trip takes."""
        self.forgets_after = forgets_after
        """Seconds without a byte after which a connection is forgotten: nothing passes any more, and nobody is told."""
        self.connections = 0
        """Those that clients have opened so far."""
        self.links: set[L] = set()

    @property
    def url(self) -> str:
        """What REDIS_URL has to be."""
        return f"redis://{HOST}:{self.port}/0"

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends everything."""
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def hold(self, held: bool) -> None:
        """A black hole while `held`: nothing passes, nothing is refused. Afterwards all of it passes."""
        if held:
            self._open.clear()
        else:
            self._open.set()

    def forget(self) -> None:
        """Forgets every connection there is, as a NAT does that has restarted; new ones are no trouble."""
        for link in list(self.links):
            link.forgotten = True

    async def requests(self, link: L, chunks: AsyncIterator[bytes]) -> None:
        """Passes on what the client sends."""
        async for chunk in chunks:
            link.server.write(chunk)
            await link.server.drain()

    async def replies(self, link: L, chunks: AsyncIterator[bytes]) -> None:
        """Passes on what Redis replies."""
        async for chunk in chunks:
            link.client.write(chunk)
            await link.client.drain()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.connections += 1
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except OSError:
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the end of the proxy; asyncio would report it as an error of the task
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        from_redis, to_redis = await asyncio.open_connection(HOST, self.upstream)
        link = self.kind(writer, to_redis)
        self.links.add(link)
        late = _Late(from_redis, self)
        pumps = [
            asyncio.ensure_future(self.requests(link, self._passing(link, reader))),
            asyncio.ensure_future(self.replies(link, self._passing(link, late))),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.links.discard(link)
            for task in (*pumps, late.reading):
                task.cancel()
            await asyncio.gather(*pumps, late.reading, return_exceptions=True)
            writer.close()
            to_redis.close()

    async def _passing(self, link: L, source: "asyncio.StreamReader | _Late") -> AsyncIterator[bytes]:
        """What is read, as far as the network lets it pass."""
        loop = asyncio.get_running_loop()
        while chunk := await source.read(CHUNK_BYTES):
            await self._open.wait()
            idle = loop.time() - link.heard
            link.forgotten = link.forgotten or (self.forgets_after is not None and idle > self.forgets_after)
            if not link.forgotten:
                link.heard = loop.time()
                yield chunk
        while link.forgotten:  # nor does the other side hear that this one has hung up
            await asyncio.Event().wait()


class _Late:
    """Reads at once, and tells of it after the proxy's delay: bytes that come meanwhile are no later for it."""

    def __init__(self, reader: asyncio.StreamReader, proxy: Proxy[Any]) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self.reading = asyncio.ensure_future(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        piece = b"begin"
        while piece:
            piece = b""  # an error is the end, too
            with suppress(OSError):
                piece = await reader.read(CHUNK_BYTES)
            self._pieces.put_nowait((self._loop.time(), piece))

    async def read(self, _: int) -> bytes:
        came, piece = await self._pieces.get()
        if (left := came + self._proxy.delay - self._loop.time()) > 0:
            await asyncio.sleep(left)
        return piece


@contextmanager
def proxied(upstream: int, **behaviour: float) -> Iterator[Proxy[Link]]:
    """A proxy in a thread of its own, until the end of the block: for clients that are other processes."""
    proxy: Proxy[Link] = Proxy(upstream, **behaviour)
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="proxy", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(proxy.start(), loop).result()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
