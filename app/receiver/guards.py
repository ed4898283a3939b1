"""What a request must pass before its body is read: HTTPS, address, encoding.

Behind a load balancer, the peer of the connection is a proxy, and the sender's address and protocol are known only
from headers, which the sender may have written as well. Whom the receiver believes:

- A peer in JOBHOOK_TRUSTED_PROXIES, and the peer of a Unix socket, which only a process of this machine can reach. A
  TCP peer without an address (it has reset the connection before it was looked at) is nobody we know: not believed.
- Of `X-Forwarded-For`, only what such proxies have written. Each proxy appends the address that it was reached from,
  so the list is read from the right, as long as the addresses are those of trusted proxies. The first that is not is
  the sender's; all to its left is the sender's own claim.
- Of `X-Forwarded-Proto`, what the proxy has written that wrote the sender's address: the item as far from the right
  end as that address is in its list. A sender's own items only make a list longer on the left, and so shift nothing.
- If there are fewer protocols than that, some proxy has appended none, and nobody knows which hop an item is of: then
  every one has to be https.

From this follows what the proxies have to do: set both headers, or append to both. If an outer one appends to
`X-Forwarded-Proto` and an inner one does not, a sender's own item takes the place of the missing one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from starlette.types import Scope

from app.config.networks import Network
from app.config.settings import Settings
from app.receiver.refusals import AddressNotAllowed, ContentEncoded, PlainHttp

_CLIENTS_REMEMBERED = 1024
_LONGEST_REMEMBERED = 256
"""Bytes of both headers. Longer ones are full of a sender's own claims, and are not worth the memory."""
_MAPPED_BITS = 96
"""Of an IPv6 address, before the IPv4 address in it (RFC 4291, 2.5.5.2)."""
_PLAIN_CODINGS = frozenset({b"identity", b"chunked", b""})
"""After these the body is what was signed: `chunked` is undone by then, and an empty list item says nothing."""

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Client:
    """Who sent a request, as far as the load balancer is believed."""

    address: str
    https: bool
    allowed: bool


class Gate:
    """Tells who the client is, and refuses who may not enter."""

    def __init__(self, settings: Settings) -> None:
        self._require_https = settings.require_https
        self._trusted = [_unmapped(network) for network in settings.trusted_proxies]
        self._allowed = [_unmapped(network) for network in settings.allowed_ips]
        # The same few load balancers and senders come again and again; parsing addresses is dear.
        self._is_proxy = lru_cache(_CLIENTS_REMEMBERED)(self._find_proxy)
        self._client = lru_cache(_CLIENTS_REMEMBERED)(self._identify)

    def admit(self, scope: Scope, forwarded_for: bytes, forwarded_proto: bytes) -> Client:
        """The client of a request, given the joined values of its X-Forwarded-For and -Proto headers.

        Raises:
            PlainHttp: it did not come over HTTPS.
            AddressNotAllowed: the address is not allow-listed.
        """
        peer = scope["client"][0] if scope["client"] else ""
        trusted = self._is_proxy(peer) if peer else _on_unix_socket(scope)
        if not trusted:  # what strangers claim is neither believed nor remembered
            forwarded_for = forwarded_proto = b""
        short = len(forwarded_for) + len(forwarded_proto) <= _LONGEST_REMEMBERED
        identify = self._client if short else self._identify
        client = identify(peer, scope["scheme"], forwarded_for, forwarded_proto)
        if self._require_https and not client.https:
            raise PlainHttp
        if not client.allowed:
            raise AddressNotAllowed
        return client

    def _find_proxy(self, peer: str) -> bool:
        address = _parse(peer)
        return address is not None and _within(address, self._trusted)

    def _identify(self, peer: str, scheme: str, forwarded_for: bytes, forwarded_proto: bytes) -> Client:
        address, hops = _parse(peer), 0
        for hop in reversed(_items(forwarded_for)):
            address, hops = _parse(hop), hops + 1
            if address is None or not _within(address, self._trusted):
                break
        return Client(
            address=str(address) if address else "unknown",
            https=_over_https(_items(forwarded_proto) or [scheme], max(hops, 1)),
            allowed=not self._allowed or (address is not None and _within(address, self._allowed)),
        )


def refuse_encoded(*codings: bytes) -> None:
    """Refuses a compressed body: what was signed is not what would be read. Takes the values of Content-Encoding
    and Transfer-Encoding.

    Raises:
        ContentEncoded: one of them names a coding other than identity and chunked.
    """
    for value in codings:
        if value and not {coding.strip().lower() for coding in value.split(b",")} <= _PLAIN_CODINGS:
            raise ContentEncoded


def _on_unix_socket(scope: Scope) -> bool:
    """Whether the server listens on a Unix socket: ASGI then gives its path, and no port."""
    server: tuple[str, int | None] | None = scope.get("server")
    return server is not None and server[1] is None


def _over_https(protocols: list[str], hops: int) -> bool:
    """Whether the hop was HTTPS that is so many from the right end, 1 being the last."""
    of_the_hop = protocols[-hops:][:1] if len(protocols) >= hops else protocols
    return all(protocol.lower() == "https" for protocol in of_the_hop)


def _items(header: bytes) -> list[str]:
    return [item for part in header.decode("latin-1").split(",") if (item := part.strip())]


def _parse(text: str) -> Address | None:
    host = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:  # an IPv4 address with a port, as some load balancers write it
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _unmapped(network: Network) -> Network:
    """IPv4 addresses written as IPv6, as a socket for both shows its peers, are compared as what they are."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    outside = _MAPPED_BITS - network.prefixlen
    return network if mapped is None or outside > 0 else IPv4Network((mapped, -outside))


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
