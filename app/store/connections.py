"""How a client finds Redis: at a fixed address, or through Sentinel, which names the current primary.

redis-py knows the URLs of the former. The form for Sentinel is

    redis+sentinel://[user:password@]host1:26379,host2:26379,host3:26379/service[/db][?option=value&…]

`rediss+sentinel://` speaks TLS, to the servers and to the sentinels. A sentinel is asked for the
primary whenever a connection is opened. asyncio clients ask all at once; for others, one that does not
answer costs a share of the time there is, and then the next is asked.
"""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from redis import Redis
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from app.store import pools

SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL_SCHEMES)
SENTINEL_PORT = 26379
LARGEST_PORT = 65535

# Not urllib's: since a security fix it refuses brackets after the first host.
_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<credentials>[^/?#]*)@)?(?P<nodes>[^/?#@]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?"
)
_NODE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(\d{1,5}))?", re.ASCII)
_SERVICE_AND_DB = re.compile(r"/([\w.-]+)(?:/(\d{1,5}))?", re.ASCII)
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SWITCHES = {"ssl_check_hostname": {"true": True, "false": False}}
_UNREADABLE = "cannot be read: a password with / or @ in it has to be percent-encoded"
_UNREADABLE_SENTINELS = _UNREADABLE + "; sentinels are written host:port, separated by commas"


@dataclass(frozen=True)
class Sentinels:
    """Where to ask for the primary, and how to speak to it and to those asked."""

    nodes: tuple[tuple[str, int], ...]
    service: str
    server: dict[str, Any] = field(repr=False)
    """redis-py's arguments for connections to the servers: database, user, password, TLS."""
    asked: dict[str, Any] = field(repr=False)
    """The same for those to the sentinels."""

    def share(self, seconds: float) -> float:
        """How long each sentinel may take, so that with all but one dead there is time left to connect."""
        return seconds / (len(self.nodes) + 1)


def check_url(url: str) -> None:
    """Whether a client can be made of a URL.

    Raises:
        ValueError: it cannot; the message says why, and quotes no password.
    """
    if not url.startswith(SCHEMES):
        raise ValueError("must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://")
    if url.startswith(SENTINEL_SCHEMES):
        read_sentinel_url(url)
        return
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:  # whose message may quote the password
        raise ValueError(_UNREADABLE) from None


def read_sentinel_url(url: str) -> Sentinels:
    """What a URL for Sentinel says.

    Raises:
        ValueError: it is none; the message says why, and quotes no password.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(_UNREADABLE_SENTINELS)
    try:
        options = parse_qsl(parts["query"] or "", keep_blank_values=True, strict_parsing=bool(parts["query"]))
    except ValueError:
        raise ValueError(_UNREADABLE) from None
    found = [_NODE.fullmatch(node) for node in parts["nodes"].split(",")]
    path = _SERVICE_AND_DB.fullmatch(parts["path"])
    if not all(node and int(node[2] or SENTINEL_PORT) <= LARGEST_PORT for node in found):
        raise ValueError(_UNREADABLE_SENTINELS)
    if path is None:
        raise ValueError("must name the service after the sentinels: redis+sentinel://host1,host2,host3/mymaster")
    asked, tls = _read_options(options, tls=parts["scheme"] == "rediss")
    user, _, password = (parts["credentials"] or "").partition(":")
    server = {"username": unquote(user), "password": unquote(password), "db": int(path[2] or 0)}
    return Sentinels(
        nodes=tuple((node[1].strip("[]"), int(node[2] or SENTINEL_PORT)) for node in found if node),
        service=path[1],
        server={name: value for name, value in server.items() if value} | tls,
        asked=asked | tls,
    )


def _read_options(options: list[tuple[str, str]], *, tls: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments for the sentinels alone, and those of TLS."""
    allowed = [*_SENTINEL_OPTIONS, *(_TLS_OPTIONS if tls else ())]
    asked: dict[str, Any] = {}
    secured: dict[str, Any] = {"ssl": True} if tls else {}
    for name, value in options:
        if name not in allowed:
            raise ValueError(f"has an option that is not known here; those for Sentinel are {', '.join(allowed)}")
        if not value:
            raise ValueError(f"gives no value to {name}")
        switch = _SWITCHES.get(name)
        if switch and value not in switch:
            raise ValueError(f"{name} must be {' or '.join(switch)}")
        if name in _SENTINEL_OPTIONS:
            asked[_SENTINEL_OPTIONS[name]] = value
        else:
            secured[name] = switch[value] if switch else value
    return asked, secured


def connect(url: str, *, timeout: float, retries: int = 1) -> "Redis":
    """A client. Looking for the primary, opening a connection and each command may take `timeout` seconds."""
    options = _options(timeout, timeout, Retry(NoBackoff(), retries))
    if not url.startswith(SENTINEL_SCHEMES):
        return Redis.from_pool(pools.FreshPool.from_url(url, **options))
    found = read_sentinel_url(url)
    sentinel = pools.Sentinels(found.nodes, sentinel_kwargs=_asking(found, timeout, Retry(NoBackoff(), 0)))  # type: ignore[no-untyped-call]
    return Redis.from_pool(pools.PrimaryPool(found.service, sentinel, **found.server, **options))


def connect_async(url: str, *, timeout: float | None, connect_timeout: float, retries: int = 1) -> "AsyncRedis":
    """The same for asyncio. A command may take `timeout` seconds, for ever if it is None."""
    return AsyncRedis.from_pool(_async_pool(url, timeout, connect_timeout, retries))


def pool_of_pipes(url: str, *, connect_timeout: float) -> AsyncConnectionPool:
    """Makes connections for `Pipe`, which open in as few round trips as there can be.

    There is one for the password and one for a database that is not the first. redis-py's others, in which
    client and server say what they are and agree on a protocol, are left out: from far away each costs
    a good part of a second.
    """
    return _async_pool(url, None, connect_timeout, 0, protocol=2, driver_info=None)


def _async_pool(
    url: str, timeout: float | None, connect_timeout: float, retries: int, **greeting: Any
) -> AsyncConnectionPool:
    options = _options(timeout, connect_timeout, AsyncRetry(NoBackoff(), retries)) | greeting
    if not url.startswith(SENTINEL_SCHEMES):
        return pools.AsyncFreshPool.from_url(url, **options)
    found = read_sentinel_url(url)
    asking = _asking(found, connect_timeout, AsyncRetry(NoBackoff(), 0)) | greeting
    sentinel = pools.AsyncSentinels(found.nodes, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    return pools.AsyncPrimaryPool(found.service, sentinel, **found.server, **options)


def _options(timeout: float | None, connect_timeout: float, retry: Retry | AsyncRetry) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": connect_timeout, "retry": retry}


def _asking(found: Sentinels, seconds: float, retry: Retry | AsyncRetry) -> dict[str, Any]:
    share = found.share(seconds)
    return found.asked | _options(share, share, retry)
