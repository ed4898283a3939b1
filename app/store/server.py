"""Asks a server, in one round trip, what it is and how it keeps what is written."""

from typing import Any

from redis import Redis
from redis._parsers.helpers import parse_info
from redis.client import Pipeline
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from app.store.durability import Server
from app.store.pipe import Command, Pipe

MOST_MEMORY = 0.8
"""The share of the memory from which on the rest is the inbox's alone."""

INFO: Command = ("INFO",)
CONFIG: Command = ("CONFIG", "GET", "appendfsync", "maxmemory-policy")


def ask(pipeline: "Pipeline") -> None:
    """Adds the two commands whose replies `server_from` takes."""
    pipeline.info()
    pipeline.config_get(*map(str, CONFIG[2:]))


def has_room(redis: "Redis") -> bool:
    """Whether there is room for what is worth less than the inbox: not when the memory is nearly used up."""
    memory: Any = redis.info("memory")
    limit = int(memory.get("maxmemory", 0))
    return not limit or int(memory["used_memory"]) < MOST_MEMORY * limit


async def read_server(pipe: Pipe, *more: Command) -> tuple[Server, list[Any]]:
    """What is known of the server at the other end of a pipe, and the replies to whatever `more` goes with it.

    Raises:
        RedisError: the server cannot be reached, or does not let us ask.
    """
    info, config, *replies = await pipe.ask(INFO, CONFIG, *more)
    return server_from(info, config), replies


def server_from(info: Any, config: Any) -> Server:
    """The server that gave these replies, parsed or as they came over the wire.

    Raises:
        RedisError: the reply to INFO is an error. That to CONFIG may be one: managed services forbid it.
    """
    for reply in (info, config):
        if isinstance(reply, Exception) and (reply is info or not isinstance(reply, ResponseError)):
            raise reply
    if isinstance(info, bytes):
        info = parse_info(info)  # type: ignore[no-untyped-call]
    return Server.from_info(info, {} if isinstance(config, ResponseError) else _pairs(config))


def _pairs(config: Any) -> dict[str, str]:
    """From a map, or from names and values in turn, as the protocol has it."""
    pairs = config.items() if isinstance(config, dict) else zip(config[::2], config[1::2], strict=True)
    return {str_if_bytes(name): str_if_bytes(value) for name, value in pairs}
