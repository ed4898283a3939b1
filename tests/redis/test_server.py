"""What a server says of itself: the same to whoever asks, in one round trip."""

import asyncio
from collections.abc import Callable

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.inbox.inbox import connect
from app.store.connections import pool_of_pipes
from app.store.durability import Server
from app.store.pipe import Pipe
from app.store.server import ask, read_server, server_from
from tests.support.stack import make_settings

Read = Callable[[Settings], Server]


def by_client(settings: Settings) -> Server:
    with connect(settings) as redis, redis.pipeline(transaction=False) as pipeline:
        ask(pipeline)
        return server_from(*pipeline.execute(raise_on_error=False))


def by_pipe(settings: Settings) -> Server:
    async def read() -> Server:
        pipe = Pipe(pool_of_pipes(settings.redis_url, connect_timeout=settings.ack_budget))
        await pipe.connect()
        try:
            return (await read_server(pipe))[0]
        finally:
            pipe.close()

    return asyncio.run(read())


@pytest.mark.parametrize("read", [by_client, by_pipe])
def test_a_server_tells_what_it_is(read: Read, own_server: EmbeddedServer) -> None:
    settings = make_settings(own_server.url)
    with connect(settings) as redis:
        redis.config_set("maxmemory", 10**8)
        told = read(settings)
    assert told.name.startswith("Valkey 9.")
    assert (told.aof, told.appendfsync, told.maxmemory_policy, told.primary) == (True, "always", "noeviction", True)
    assert 0 < told.memory_used < told.memory_limit == 10**8


@pytest.mark.parametrize("read", [by_client, by_pipe])
def test_a_service_that_forbids_config_tells_the_rest(read: Read, own_server: EmbeddedServer) -> None:
    told = read(make_settings(as_user(own_server, "-config")))
    assert (told.aof, told.appendfsync, told.maxmemory_policy) == (True, None, "noeviction")


@pytest.mark.parametrize("read", [by_client, by_pipe])
def test_a_service_that_tells_nothing_is_an_error(read: Read, own_server: EmbeddedServer) -> None:
    with pytest.raises(NoPermissionError):
        read(make_settings(as_user(own_server, "-info")))
    with pytest.raises(AuthenticationError):
        read(make_settings(own_server.url.replace("//", "//nobody:wrong@")))


def as_user(server: EmbeddedServer, without: str) -> str:
    """The server's URL for a user who may do all but one thing."""
    with Redis.from_url(server.url) as redis:
        redis.acl_setuser("app", enabled=True, nopass=True, keys=["*"], commands=["+@all", without])
    return server.url.replace("//", "//app:any@")
