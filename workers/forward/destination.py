"""Where events are forwarded to: what JOBHOOK_FORWARD_URLS says, checked. No I/O."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

import httpx

from app.errors import ConfigError
from workers.forward.address import is_forbidden

MAX_PORT = 65535
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")  # a name, or an address of either kind


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL that events are POSTed to."""

    name: str
    """The URL without its query: this may be shown, and is under what its success is recorded."""
    url: str = field(repr=False)
    """With the query, which may hold a token."""


def read_pairs(pairs: Iterable[str]) -> list[tuple[str, Destination]]:
    """Patterns and destinations, from `pattern=url` each.

    Raises:
        ConfigError: a pair is wrong. It is named by its position, because a URL may hold a secret.
    """
    read: list[tuple[str, Destination]] = []
    for position, pair in enumerate(pairs, 1):
        pattern, _, url = pair.partition("=")
        try:
            if not pattern or not url:
                _wrong("write pattern=url, such as invoice.*=https://erp.internal/hooks")
            destination = _destination(url)
            if any(other.name == destination.name and other != destination for _, other in read):
                _wrong("differs from another in nothing but its query: write different paths")
        except ValueError as error:
            raise ConfigError(f"JOBHOOK_FORWARD_URLS: pair {position}: {error}") from None
        read.append((pattern, destination))
    return read


def _destination(text: str) -> Destination:
    try:
        url = httpx.URL(text)
        host = url.host  # decoding it may fail as well
    except (httpx.InvalidURL, UnicodeError):  # whose messages may quote it
        _wrong("is not a URL")
    if url.scheme not in {"http", "https"}:
        _wrong("the URL must begin with https:// or http://")
    if not _HOST.fullmatch(url.raw_host):
        _wrong("the URL has no valid host")
    if url.userinfo:
        _wrong("no user or password in the URL, please: what is sent is signed instead")
    if url.port is not None and not 0 < url.port <= MAX_PORT:
        _wrong("the URL has no valid port")
    if is_forbidden(host):
        _wrong("the URL leads to a link-local, metadata, multicast or unspecified address")
    url = url.copy_with(fragment=None)
    return Destination(name=str(url.copy_with(query=None)), url=str(url))


def _wrong(why: str) -> NoReturn:
    raise ValueError(why)
