"""What a request must pass before its body is read: HTTPS, address, encoding."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from app.config.networks import Network
from app.config.settings import Settings
from app.receiver.refusals import AddressNotAllowed, ContentEncoded, PlainHttp

_CLIENTS_REMEMBERED = 1024

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
        self._trusted = settings.trusted_proxies
        self._allowed = settings.allowed_ips
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
        if not self._is_proxy(peer):  # what strangers claim is neither believed nor remembered
            forwarded_for = forwarded_proto = b""
        client = self._client(peer, scope["scheme"], forwarded_for, forwarded_proto)
        if self._require_https and not client.https:
            raise PlainHttp
        if not client.allowed:
            raise AddressNotAllowed
        return client

    def _find_proxy(self, peer: str) -> bool:
        # No address: a Unix socket, which only a proxy on this machine can reach.
        address = _parse(peer)
        return address is None or _within(address, self._trusted)

    def _identify(self, peer: str, scheme: str, forwarded_for: bytes, forwarded_proto: bytes) -> Client:
        address = _parse(peer)
        for hop in reversed(_items(forwarded_for)):
            address = _parse(hop)
            if address is None or not _within(address, self._trusted):
                break
        # Each proxy appends what it saw, so the last value is the trusted one's.
        proto = (_items(forwarded_proto) or [scheme])[-1].lower()
        return Client(
            address=str(address) if address else "unknown",
            https=proto == "https",
            allowed=not self._allowed or (address is not None and _within(address, self._allowed)),
        )


def refuse_encoded(content_encoding: bytes) -> None:
    """Refuses a compressed body: what was signed is not what would be read.

    Raises:
        ContentEncoded: there is a Content-Encoding other than identity.
    """
    if content_encoding and content_encoding.strip().lower() != b"identity":
        raise ContentEncoded


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


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
