"""Pools of connections that mend what redis-py's lack: of what a network forgets, and of a primary that changes."""

import asyncio
import sys
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any

from redis import Redis
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.asyncio.sentinel import SentinelManagedConnection as AsyncSentinelManagedConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection as AsyncSentinelManagedSSLConnection
from redis.connection import ConnectionPool
from redis.exceptions import ConnectionError, TimeoutError  # noqa: A004
from redis.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from app.store.deadline import seconds_left

IDLE_SECONDS = 2.0
"""A connection that has been idle for longer is not trusted any more.

A NAT or a load balancer on the way forgets connections that are idle, and tells nobody: what is sent on them
gets no answer, ever. The hastiest do so after some 30 s. To connect anew takes milliseconds where Redis is near.
redis-py also has TCP keep-alive set, which lets the ends notice.
"""


LEAST_SECONDS = 0.05
"""What a command is given though its deadline has passed: a Redis that is well answers in less."""


class FreshPool(ConnectionPool):
    """Hands out no connection that has been idle for long: it is closed first, and so opened anew."""

    def get_connection(self, *args: Any, **options: Any) -> Any:
        self._checkpid()
        with self._lock:  # so that nobody gets one that is being closed
            for connection in _forgotten(self._available_connections):
                connection.disconnect()
            if self._available_connections:
                _hurry(self._available_connections[-1])  # the next to be handed out
        return super().get_connection(*args, **options)

    def make_connection(self) -> Any:
        connection: Any = super().make_connection()
        connection.patience = connection.socket_timeout
        _hurry(connection)
        return connection

    def release(self, connection: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, Exception):
            # A signal (a handler's time-out, a stop) has cut the command short, perhaps between sending it and reading
            # the reply, which the next command would take for its own.
            connection.disconnect()
        connection.idle_since = monotonic()
        super().release(connection)


def connections_in_use(redis: "Redis") -> frozenset[Any]:
    """Those of a client that are at work, or listen."""
    pool: Any = redis.connection_pool
    return frozenset(pool._in_use_connections)


def drop_connections(redis: "Redis", *, but: frozenset[Any] = frozenset()) -> None:
    """Closes a client's connections and forgets them, also those in use, which nobody may ever give back.

    For when a signal has cut a command short: wherever that was, none is used again, but those that were in use before.
    """
    pool: Any = redis.connection_pool
    kept = pool._in_use_connections & but
    dropped = [*pool._available_connections, *(pool._in_use_connections - kept)]
    pool.reset()
    pool._in_use_connections |= kept
    for connection in dropped:
        connection.disconnect()


class AsyncFreshPool(AsyncConnectionPool):
    """The same for asyncio."""

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        async with self._lock:
            for connection in _forgotten(self._available_connections):
                await connection.disconnect(nowait=True)
        return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]

    async def release(self, connection: Any) -> None:
        connection.idle_since = monotonic()
        await super().release(connection)


def _hurry(connection: Any) -> None:
    """Gives a connection as long for its next command as it is made for, or what is left if that is less."""
    seconds, left = connection.patience, seconds_left()
    if left < inf:
        seconds = min(seconds, max(left / (1 + connection.retry.get_retries()), LEAST_SECONDS))
    if seconds != connection.socket_timeout:
        connection.socket_timeout = connection.socket_connect_timeout = seconds
        connection.update_current_socket_timeout(seconds)


def _forgotten(connections: Iterable[Any]) -> list[Any]:
    """The connections that whatever is between us and the server may have forgotten."""
    horizon = monotonic() - IDLE_SECONDS
    return [connection for connection in connections if connection.idle_since < horizon]


class _Connection(SentinelManagedConnection):
    """To the primary. Mends two things in which redis-py's differs from its ordinary connections."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Opened anew while a command is tried again, it too asks for the primary: the old one may be none by now."""
        self.connect()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, disconnect_on_error: bool | None = True, **kwargs: Any) -> Any:
        """Cut short, be it by a signal, it closes the connection: else the next command gets this one's answer."""
        return super().read_response(*args, disconnect_on_error=disconnect_on_error, **kwargs)


class _TlsConnection(_Connection, SentinelManagedSSLConnection):
    pass


class _AsyncConnection(AsyncSentinelManagedConnection):
    """To the primary. Mends one thing."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """As `_Connection` does."""
        await self.connect()  # type: ignore[no-untyped-call]
        await super().send_packed_command(command, check_health)


class _AsyncTlsConnection(_AsyncConnection, AsyncSentinelManagedSSLConnection):
    pass


class PrimaryPool(FreshPool, SentinelConnectionPool):
    """Of connections to the primary. Closes those to the sentinels along with them."""

    def __init__(self, *args: Any, ssl: bool = False, **kwargs: Any) -> None:
        kind = _TlsConnection if ssl else _Connection
        super().__init__(*args, connection_class=kind, **kwargs)  # type: ignore[no-untyped-call]

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:  # else: only the idle ones, which it does itself when the primary has changed
            self.sentinel_manager.close()


class AsyncPrimaryPool(AsyncFreshPool, AsyncSentinelConnectionPool):
    """Of connections to the primary. Closes those to the sentinels along with them."""

    def __init__(self, *args: Any, ssl: bool = False, **kwargs: Any) -> None:
        kind = _AsyncTlsConnection if ssl else _AsyncConnection
        super().__init__(*args, connection_class=kind, **kwargs)  # type: ignore[no-untyped-call]

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


class Sentinels(Sentinel):
    """Keeps no connection to a sentinel: until the next failover it would long be forgotten on the way."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        finally:
            for sentinel in self.sentinels:
                sentinel.connection_pool.disconnect(inuse_connections=False)


class AsyncSentinels(AsyncSentinel):
    """The same for asyncio. It asks all sentinels at once, so that those that do not answer cost no time."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The address of the primary, by the first that names one.

        Raises:
            MasterNotFoundError: none does.
        """
        asking = [asyncio.ensure_future(self._ask(sentinel, service_name)) for sentinel in self.sentinels]
        try:
            for answer in asyncio.as_completed(asking):
                if address := await answer:
                    return address
        finally:
            for question in asking:
                question.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            for sentinel in self.sentinels:
                await sentinel.connection_pool.disconnect(inuse_connections=False)
        raise MasterNotFoundError(f"no sentinel names a primary of {service_name}")

    async def _ask(self, sentinel: "AsyncRedis", service_name: str) -> tuple[str, int] | None:
        try:
            services: Any = await sentinel.sentinel_masters()
        except (ConnectionError, TimeoutError):
            return None
        state = services.get(service_name)
        found = state and self.check_master_state(state, service_name)
        return (state["ip"], state["port"]) if found else None
