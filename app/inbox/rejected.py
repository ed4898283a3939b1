"""Deliveries whose signature did not verify, kept for a while so that a wrong setting loses nothing (P10).

They are unverified: anybody may have sent them. They lie in a stream of bounded size, apart from the events.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson
from redis import Redis

from app.config.settings import Settings
from app.delivery.diagnosis import RawRequest, signature_headers
from app.errors import RejectedNotFound, SignatureFault
from app.inbox.scripts import PREFIX
from app.store.server import MOST_MEMORY

KEY = PREFIX + "rejected"
MAX_HEADERS = 64
MAX_HEADER_BYTES = 4096
"""Of one header, its name included; a longer one is left out."""
MAX_HEADERS_BYTES = 16384
"""Of all headers kept of one delivery."""
PAGE = 20
"""Deliveries read in one round trip: each may be as large as a body may be."""

_SECRET = re.compile(rb"cookie|authoriz|password|secret|api-?key|token|credential")
"""Headers that may hold what lets somebody in, by their names in lower case."""
_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_HEX = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-fA-F]{32,128}(?![0-9a-zA-Z])")

Pairs = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A delivery that was refused with a 401. Nothing in it is verified."""

    id: str
    received: float
    """In seconds since 1970, by the receiver's clock: what a signed timestamp was compared with."""
    peer: str
    """The sender's address, as far as the load balancer is believed."""
    fault: SignatureFault
    request: RawRequest
    left_out: tuple[str, ...]
    """The names of headers that were not kept."""

    def why(self, signature_header: str) -> list[str]:
        """Why it was refused, in words; of the request itself they name headers only."""
        own = signature_header.lower()
        words = [self._fault_in_words(own)]
        others = [name for name in signature_headers(self.request) if name.lower() != own]
        if others:
            words.append(f"other headers that look like signatures: {', '.join(others)}")
        if not self.request.body:
            words.append("body 0 bytes")
        return words

    def _fault_in_words(self, header: str) -> str:
        values = self.request.all(header.encode())
        if self.fault.startswith("looks like") and len(values) == 1:
            digits = _HEX.search(values[0])
            return f"{len(digits[0])} hex digits: {self.fault}" if digits else f"base64: {self.fault}"
        return self.fault


def reject_arguments(
    settings: Settings, received: float, peer: str, fault: SignatureFault, head: bytes, body: bytes
) -> list[bytes | str | int | float]:
    """The arguments of the reject script."""
    limits = (settings.rejected_bytes, int(settings.rejected_for), MOST_MEMORY)
    return [*limits, int(received * 1000), peer, fault, head, body]


def pack_head(method: str, path: bytes, query: bytes, headers: Pairs, always: Iterable[str] = ()) -> bytes:
    """What is kept of a request's head: what diagnosis needs, within bounds.

    Headers that may let somebody in are left out, unless they are among `always`: those that the settings name.
    """
    wanted = {name.lower().encode() for name in always}
    kept: list[tuple[str, str]] = []
    left_out: dict[str, None] = {}
    size = 0
    for name, value in headers:
        length = len(name) + len(value)
        is_secret = _SECRET.search(name) and name not in wanted
        if is_secret or len(kept) == MAX_HEADERS or length > MAX_HEADER_BYTES or size + length > MAX_HEADERS_BYTES:
            if len(left_out) < MAX_HEADERS:
                left_out[name[:MAX_HEADERS].decode("latin-1")] = None
            continue
        size += length
        kept.append((name.decode("latin-1"), value.decode("latin-1")))
    head = {
        "method": method,
        "path": path[:MAX_HEADER_BYTES].decode("latin-1"),
        "query": query[:MAX_HEADER_BYTES].decode("latin-1"),
        "headers": kept,
        "left_out": list(left_out),
    }
    return orjson.dumps(head)


class RejectedDeliveries:
    """Reads what is kept, and removes what has been admitted. Redis errors pass through to the caller."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    def count(self) -> int:
        """How many are kept."""
        return self._redis.xlen(KEY)

    def newest(self) -> Iterator[Rejected]:
        """From the newest back, lazily."""
        end = "+"
        while page := cast(list[Any], self._redis.xrevrange(KEY, end, "-", count=PAGE)):
            yield from map(_read, page)
            end = f"({page[-1][0].decode()}"

    def oldest(self) -> Iterator[Rejected]:
        """Those that are there now, from the oldest on, lazily."""
        last = cast(list[Any], self._redis.xrevrange(KEY, "+", "-", count=1))
        start = "-"
        while last and (page := cast(list[Any], self._redis.xrange(KEY, start, last[0][0], count=PAGE))):
            yield from map(_read, page)
            start = f"({page[-1][0].decode()}"

    def get(self, id: str) -> Rejected:
        """One of them.

        Raises:
            RejectedNotFound: it is not kept, or not any more.
        """
        found = cast(list[Any], self._redis.xrange(KEY, id, id, count=1)) if _ID.fullmatch(id) else []
        if not found:
            raise RejectedNotFound(f"No rejected delivery {id} is kept: never was, admitted, or gone to make room.")
        return _read(found[0])

    def remove(self, ids: Sequence[str]) -> None:
        """Forgets those that have been admitted."""
        if ids:
            self._redis.xdel(KEY, *ids)


def _read(entry: tuple[bytes, dict[bytes, bytes]]) -> Rejected:
    id, fields = entry
    head = orjson.loads(fields[b"head"])
    request = RawRequest(
        head["method"],
        head["path"].encode("latin-1"),
        head["query"].encode("latin-1"),
        tuple((name, value.encode("latin-1")) for name, value in head["headers"]),
        fields[b"body"],
    )
    return Rejected(
        id=id.decode(),
        received=int(fields[b"received"]) / 1000,
        peer=fields[b"peer"].decode(),
        fault=cast(SignatureFault, fields[b"fault"].decode()),
        request=request,
        left_out=tuple(head["left_out"]),
    )
