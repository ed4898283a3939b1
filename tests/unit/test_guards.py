"""P3: what strangers may cost and whose word is believed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.config.settings import Settings
from app.receiver.guards import Client, Gate, refuse_encoded
from app.receiver.refusals import AddressNotAllowed, ContentEncoded, PlainHttp

STRANGER = "203.0.113.9"
PROXY = "10.0.0.1"
SENDER = "198.51.100.7"


def gate(**overrides: Any) -> Gate:
    defaults: dict[str, Any] = {"api_key": "jso_live_8f2c1d7e4b6a9035", "trusted_proxies": "10.0.0.0/8, fd00::/8"}
    return Gate(Settings(**defaults | overrides))


def admit(
    gate: Gate, peer: str | None, forwarded_for: bytes = b"", forwarded_proto: bytes = b"", scheme: str = "http"
) -> Client:
    scope = {"client": (peer, 50000) if peer is not None else None, "scheme": scheme}
    return gate.admit(scope, forwarded_for, forwarded_proto)


# HTTPS


def test_plain_http_is_refused() -> None:
    with pytest.raises(PlainHttp):
        admit(gate(), STRANGER)


def test_https_that_ends_here_is_accepted() -> None:
    assert admit(gate(), STRANGER, scheme="https").https


@pytest.mark.parametrize("proto", [b"https", b"HTTPS", b" https ", b"http,https", b"http, https"], ids=repr)
def test_a_trusted_proxy_is_believed_that_it_was_https(proto: bytes) -> None:
    assert admit(gate(), PROXY, b"198.51.100.7", proto).https


@pytest.mark.parametrize(
    "proto", [b"http", b"https,http", b"https, http", b"", b",", b"https;", b"wss", b"\xff"], ids=repr
)
def test_a_sender_cannot_claim_https_through_a_proxy_that_appends(proto: bytes) -> None:
    """P3: the last value is the proxy's own, those before it are whatever the sender wrote."""
    with pytest.raises(PlainHttp):
        admit(gate(), PROXY, b"198.51.100.7", proto)


def test_a_proxy_that_says_plain_http_is_believed_too() -> None:
    with pytest.raises(PlainHttp):
        admit(gate(), PROXY, b"198.51.100.7", b"http", scheme="https")


def test_a_stranger_is_not_believed() -> None:
    """P3."""
    with pytest.raises(PlainHttp):
        admit(gate(), STRANGER, b"198.51.100.7", b"https")


def test_https_need_not_be_required() -> None:
    assert not admit(gate(require_https=False), STRANGER).https


# Address

ADDRESSES: dict[str, tuple[str | None, bytes, str]] = {
    "no proxy": (STRANGER, b"", STRANGER),
    "spoofed by a stranger": (STRANGER, b"198.51.100.7", STRANGER),
    "proxy": (PROXY, b"198.51.100.7", SENDER),
    "proxy without the header": (PROXY, b"", PROXY),
    "spoofed through a proxy": (PROXY, b"192.0.2.1, 198.51.100.7", SENDER),
    "trusted address spoofed through a proxy": (PROXY, b"10.9.9.9, 198.51.100.7", SENDER),
    "two proxies": (PROXY, b"198.51.100.7, 10.0.0.2", SENDER),
    "two proxies, spoofed": (PROXY, b"192.0.2.1, 198.51.100.7, 10.0.0.2", SENDER),
    "proxies only": (PROXY, b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
    "empty items": (PROXY, b" , 198.51.100.7,, ", SENDER),
    "with port": (PROXY, b"198.51.100.7:41234", SENDER),
    "IPv6": (PROXY, b"2001:db8::7", "2001:db8::7"),
    "IPv6, written out": (PROXY, b"2001:0DB8:0:0:0:0:0:7", "2001:db8::7"),
    "IPv6 in brackets": (PROXY, b"[2001:db8::7]", "2001:db8::7"),
    "IPv6 with port": (PROXY, b"[2001:db8::7]:41234", "2001:db8::7"),
    "IPv4 mapped": (PROXY, b"::ffff:198.51.100.7", SENDER),
    "IPv4-mapped proxy": ("::ffff:10.0.0.1", b"198.51.100.7", SENDER),
    "IPv6 proxy": ("fd00::1", b"198.51.100.7", SENDER),
    "IPv6 stranger": ("2001:db8::9", b"198.51.100.7", "2001:db8::9"),
    "garbage": (PROXY, b"unknown", "unknown"),
    "garbage after the address": (PROXY, b"198.51.100.7, _hidden", "unknown"),
    "non-ASCII": (PROXY, b"\xff\xfe", "unknown"),
    "octal": (PROXY, b"0306.051.0144.07", "unknown"),
    "Unix socket": (None, b"198.51.100.7", SENDER),
    "Unix socket, no header": (None, b"", "unknown"),
    "Unix socket, empty peer": ("", b"198.51.100.7", SENDER),
}


@pytest.mark.parametrize(("peer", "forwarded_for", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_finds_the_clients_address(peer: str | None, forwarded_for: bytes, address: str) -> None:
    """P3: nearest first, up to the first hop that is not one of our proxies."""
    assert admit(gate(require_https=False), peer, forwarded_for).address == address


@pytest.mark.parametrize(
    ("peer", "forwarded_for"),
    [(SENDER, b""), (PROXY, b"198.51.100.7"), (PROXY, b"2001:db8::7"), (PROXY, b"::ffff:198.51.100.7")],
    ids=["direct", "proxied", "IPv6", "IPv4 mapped"],
)
def test_admits_who_is_allow_listed(peer: str, forwarded_for: bytes) -> None:
    allowing = gate(require_https=False, allowed_ips="198.51.100.0/24, 2001:db8::/32")
    assert admit(allowing, peer, forwarded_for).allowed


@pytest.mark.parametrize(
    ("peer", "forwarded_for"),
    [
        pytest.param(STRANGER, b"", id="direct"),
        pytest.param(STRANGER, b"198.51.100.7", id="spoofed by a stranger"),
        pytest.param(PROXY, b"198.51.100.7, 203.0.113.9", id="spoofed through a proxy"),
        pytest.param(PROXY, b"", id="the proxy itself"),
        pytest.param(PROXY, b"garbage", id="garbage"),
        pytest.param(None, b"", id="unknown"),
    ],
)
def test_refuses_who_is_not_allow_listed(peer: str | None, forwarded_for: bytes) -> None:
    """P3."""
    allowing = gate(require_https=False, allowed_ips="198.51.100.0/24")
    with pytest.raises(AddressNotAllowed):
        admit(allowing, peer, forwarded_for)


def test_remembers_no_answer_for_another_client() -> None:
    """Clients are cached; every part of the question counts."""
    shared = gate(allowed_ips="198.51.100.7")
    assert admit(shared, PROXY, b"198.51.100.7", b"https").allowed
    with pytest.raises(PlainHttp):
        admit(shared, PROXY, b"198.51.100.7", b"http")
    with pytest.raises(AddressNotAllowed):
        admit(shared, PROXY, b"198.51.100.8", b"https")
    with pytest.raises(AddressNotAllowed):
        admit(shared, STRANGER, b"198.51.100.7", b"https", scheme="https")


@hypothesis_settings(deadline=None)
@given(forwarded_for=st.binary(), forwarded_proto=st.binary())
def test_nothing_a_stranger_writes_changes_who_it_is(forwarded_for: bytes, forwarded_proto: bytes) -> None:
    """P3."""
    admitted = admit(gate(require_https=False), STRANGER, forwarded_for, forwarded_proto)
    assert admitted == Client(address=STRANGER, https=False, allowed=True)


@hypothesis_settings(deadline=None)
@given(forwarded_for=st.binary() | st.from_regex(rb"\A[0-9a-f:.,\[\]% ]{0,40}\Z"), forwarded_proto=st.binary())
def test_nothing_a_sender_writes_is_an_error_of_ours(forwarded_for: bytes, forwarded_proto: bytes) -> None:
    """P3, P6: malformed headers behind a proxy are never a 500."""
    assert admit(gate(require_https=False), PROXY, forwarded_for, forwarded_proto).allowed


# Content-Encoding


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity "], ids=repr)
def test_accepts_a_body_as_it_is(encoding: bytes) -> None:
    refuse_encoded(encoding)


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"identity, gzip", b"identity;", b"\xff"], ids=repr)
def test_refuses_an_encoded_body(encoding: bytes) -> None:
    with pytest.raises(ContentEncoded):
        refuse_encoded(encoding)
