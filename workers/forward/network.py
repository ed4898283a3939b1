"""One POST to where it may go, in limited time.

Names are resolved here: every address is checked, and the very address that was checked is connected
to, so that a name that changes its mind leads nowhere. TLS and the Host header keep the name. Nothing
is taken from the environment but the CAs; redirects are not followed. Each request has a connection
of its own, so that the check holds for each, and nothing is left behind when time is up.
"""

import socket
import ssl
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple

import httpcore

from workers.forward.address import is_forbidden
from workers.forward.errors import DestinationUnreachable, ForbiddenAddress
from workers.timed import TimedStream, at_most

CONNECT_SECONDS = 3.0
"""For a connection to one address, and again for TLS."""
READ_SECONDS = 10.0
"""Without a byte coming or going."""

HeaderPairs = Sequence[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """What counts of an answer. Its body is not read."""

    status: int
    retry_after: list[str]
    date: list[str]


def post(url: str, headers: HeaderPairs, body: bytes, *, seconds: float, tls: ssl.SSLContext) -> Reply:
    """Posts a body; `seconds` is for everything from resolving the name to the answer's headers.

    Raises:
        DestinationUnreachable: there was no answer, or none in time.
        ForbiddenAddress: the name leads to an address that is never forwarded to.
    """
    timeouts = {"connect": CONNECT_SECONDS, "read": READ_SECONDS, "write": READ_SECONDS}
    backend = _CheckedBackend(monotonic() + seconds)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=tls, network_backend=backend) as pool,
            pool.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeouts}) as response,
        ):
            fields = [(name.lower(), value.decode("latin-1").strip()) for name, value in response.headers]
            retry_after, date = ([value for name, value in fields if name == of] for of in (b"retry-after", b"date"))
            return Reply(response.status, retry_after, date)
    except httpcore.TimeoutException as error:
        raise DestinationUnreachable(f"no answer in time ({type(error).__name__})") from None
    except httpcore.NetworkError as error:
        raise DestinationUnreachable(f"no connection: {error}") from None
    except httpcore.ProtocolError:  # whose message may quote what was received
        raise DestinationUnreachable("the answer is not HTTP, or was cut off") from None


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, until the deadline (by the monotonic clock)."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        error: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in _resolve(host, port):
            try:
                stream = self._backend.connect_tcp(
                    address, port, at_most(self._seconds_left(), timeout), local_address, socket_options
                )
                return TimedStream(stream, self._seconds_left)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = error or failure
        raise error or httpcore.ConnectError("the name has no address")

    def _seconds_left(self) -> float:
        return self._deadline - monotonic()


def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, or of an address in any of its spellings."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise httpcore.ConnectError("the name cannot be resolved") from None
    addresses = [str(address[0]) for *_, address in found]
    if any(is_forbidden(address) for address in addresses):
        raise ForbiddenAddress("the name leads to a link-local, metadata, multicast or unspecified address")
    return addresses
