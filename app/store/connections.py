"""How a client finds Redis: at a fixed address, or through Sentinel, which names the current primary.

    redis://[user:password@]host[:6379][/db][?option=value&…]
    unix://[user:password@]/path/of/the/socket[?db=0]
    redis+sentinel://[user:password@]host1:26379,host2:26379,host3:26379/service[/db][?option=value&…]

`rediss://` and `rediss+sentinel://` speak TLS, the latter to the servers and to the sentinels. The first two forms
are redis-py's, but it takes a database that is no number for 0, port 0 for 6379, and hands every option to its
connections, where an unknown one is a TypeError and a known one may undo what is set here: so they are read here
first, and what is not certain is refused.

A sentinel is asked for the primary whenever a connection is opened. asyncio clients ask all at once; for others,
one that does not answer costs a share of the time there is, and then the next is asked.
"""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from redis import Redis
from redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from app.errors import ConfigError
from app.store import pools
from app.store.packing import Packer

SENTINEL_SCHEMES = ("redis+sentinel://", "rediss+sentinel://")
SCHEMES = ("redis://", "rediss://", "unix://", *SENTINEL_SCHEMES)
SENTINEL_PORT = 26379
LARGEST_PORT = 65535

# Not urllib's: since a security fix it refuses brackets after the first host.
_URL = re.compile(
    r"(?P<scheme>rediss?|unix)(?:\+sentinel)?://(?:(?P<credentials>[^/?#]*)@)?(?P<nodes>[^/?#@]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?"
)
_NODE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(\d{1,5}))?", re.ASCII)
_SERVICE_AND_DB = re.compile(r"/([\w.-]+)(?:/(\d{1,5}))?", re.ASCII)
_DB = re.compile(r"\d{1,5}", re.ASCII)
_SERVER_OPTIONS = ("db", "username", "password")
_SENTINEL_OPTIONS = {"sentinel_username": "username", "sentinel_password": "password"}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_CHOICES = {"ssl_cert_reqs": ("none", "optional", "required"), "ssl_check_hostname": ("true", "false")}
_UNREADABLE = "cannot be read: a password with / or @ in it has to be percent-encoded"
_UNREADABLE_SENTINELS = _UNREADABLE + "; sentinels are written host:port, separated by commas"
_UNREADABLE_ADDRESS = _UNREADABLE + "; an IPv6 address goes between [ and ], and a port is a number from 1 to 65535"


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
    """Whether a client can be made of a URL that is the one meant.

    Raises:
        ValueError: it cannot; the message says why, and quotes nothing of the URL, which may be a password.
    """
    _read_tls(url)


def _read_tls(url: str) -> dict[str, str]:
    """The options of TLS in a URL of any kind.

    Raises:
        ValueError: as `check_url`.
    """
    if not url.startswith(SCHEMES):
        raise ValueError("must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://")
    if not url.isprintable() or any(map(str.isspace, url)):
        raise ValueError("has white space in it, or another invisible character")
    options = read_sentinel_url(url).server if url.startswith(SENTINEL_SCHEMES) else _read_plain_url(url)
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("has ssl_keyfile without ssl_certfile")
    return {name: options[name] for name in _TLS_OPTIONS if name in options}


def _read_plain_url(url: str) -> dict[str, str]:
    """The options of a URL without Sentinel, once it is sure that redis-py reads it as it is meant."""
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError("has a # in it: in a password, write %23" if "#" in url else _UNREADABLE)
    if parts["scheme"] == "unix":
        if parts["nodes"] or not parts["path"].strip("/") or parts["path"].endswith("/"):
            raise ValueError("must name the socket by its whole path: unix:///run/redis.sock")
        db = ""
    else:
        if not parts["nodes"]:
            raise ValueError(f"names no host: write {parts['scheme']}://host:6379/0")
        if _read_node(parts["nodes"]) is None:
            raise ValueError(_UNREADABLE_ADDRESS)
        db = parts["path"].strip("/")
        if db and not _DB.fullmatch(db):
            raise ValueError(_UNREADABLE if "@" in db else "must have a number as its database, as in redis://host/0")
    tls = parts["scheme"] == "rediss"
    hint = "" if tls else "; for TLS, begin with rediss://"
    options = _read_query(
        parts["query"], (*_SERVER_OPTIONS, *(_TLS_OPTIONS if tls else ())), parts["scheme"] + "://", hint
    )
    user, _, password = (parts["credentials"] or "").partition(":")
    for name, given in {"db": db, "username": user, "password": password}.items():
        if given and name in options:
            raise ValueError(f"gives the {name} twice: before the ? and after it")
    if not _DB.fullmatch(options.get("db", "0")):
        raise ValueError("must have a number as its database, as in ?db=0")
    try:
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:  # whose message may quote the password
        raise ValueError(_UNREADABLE) from None
    return options


def read_sentinel_url(url: str) -> Sentinels:
    """What a URL for Sentinel says.

    Raises:
        ValueError: it is none; the message says why, and quotes no password.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise ValueError(_UNREADABLE_SENTINELS)
    nodes = [_read_node(node) for node in parts["nodes"].split(",")]
    path = _SERVICE_AND_DB.fullmatch(parts["path"])
    if not all(nodes):
        raise ValueError(_UNREADABLE_SENTINELS)
    if path is None:
        raise ValueError("must name the service after the sentinels: redis+sentinel://host1,host2,host3/mymaster")
    tls = parts["scheme"] == "rediss"
    options = _read_query(parts["query"], (*_SENTINEL_OPTIONS, *(_TLS_OPTIONS if tls else ())), "Sentinel")
    asked = {_SENTINEL_OPTIONS[name]: options.pop(name) for name in _SENTINEL_OPTIONS if name in options}
    secured: dict[str, Any] = {"ssl": True} | options if tls else {}
    if "ssl_check_hostname" in secured:
        secured["ssl_check_hostname"] = secured["ssl_check_hostname"] == "true"
    user, _, password = (parts["credentials"] or "").partition(":")
    server = {"username": unquote(user), "password": unquote(password), "db": int(path[2] or 0)}
    return Sentinels(
        nodes=tuple(node for node in nodes if node),
        service=path[1],
        server={name: value for name, value in server.items() if value} | secured,
        asked=asked | secured,
    )


def _read_node(text: str) -> tuple[str, int] | None:
    """Host and port, the port as that of a sentinel if there is none; None if it is no address."""
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    port = int(found[2] or SENTINEL_PORT)
    if not 0 < port <= LARGEST_PORT:
        return None
    host = found[1].strip("[]")
    try:
        return (str(IPv6Address(host)) if host != found[1] else host), port
    except ValueError:
        return None


def _read_query(query: str | None, allowed: Sequence[str], whose: str, hint: str = "") -> dict[str, str]:
    """The options after the `?`."""
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, raw = part.partition("=")
        if not equals:
            raise ValueError(_UNREADABLE)
        if name not in allowed:
            hint = hint if name.startswith("ssl") else ""
            raise ValueError(f"has an option that is not known here; those for {whose} are {', '.join(allowed)}{hint}")
        if not raw:
            raise ValueError(f"gives no value to {name}")
        if name in options:
            raise ValueError(f"gives {name} twice")
        if "+" in raw:  # in a query redis-py takes it for a blank
            raise ValueError(f"has a + in {name}: write %2B for it, or %20 for a blank")
        if name == "ssl_check_hostname":
            raw = raw.lower()  # Python's True and False are common in such URLs
        if raw not in (choices := _CHOICES.get(name, (raw,))):
            raise ValueError(f"{name} must be {', '.join(choices[:-1])} or {choices[-1]}")
        options[name] = unquote(raw)
    return options


def _check_certificates(tls: dict[str, str]) -> None:
    """Loads them once, because redis-py does it when it connects, and its errors look as if Redis were down.

    Raises:
        ConfigError: a file is missing or is not what it should be.
    """
    if not tls:
        return
    for name in _TLS_FILES:
        if name in tls and not Path(tls[name]).is_file():
            raise ConfigError(f"REDIS_URL: {name} names no file that is there")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tried = "ssl_ca_certs"
    try:
        if tried in tls:
            context.load_verify_locations(tls[tried])
        tried = "ssl_certfile"
        if tried in tls:
            # A password would be asked for on the terminal.
            context.load_cert_chain(tls[tried], tls.get("ssl_keyfile"), password="")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"REDIS_URL: {tried} cannot be used ({reason}): is it PEM, and does its key belong to it?"
        ) from None


def connect(url: str, *, timeout: float, retries: int = 1) -> "Redis":
    """A client. Looking for the primary, opening a connection and each command may take `timeout` seconds.

    Raises:
        ConfigError: a certificate that the URL names cannot be used.
    """
    _check_certificates(_read_tls(url))
    options = _options(timeout, timeout, Retry(NoBackoff(), retries)) | {"command_packer": Packer()}
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
