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
UNIX = "a Unix socket"


CLAIMS = ["10.0.0.9", "192.0.2.1", "unknown", "", "[fd00::9]:1", "::1"]
PROTOCOLS = ["http", "https", "", "wss"]


def gate(**overrides: Any) -> Gate:
    defaults: dict[str, Any] = {"api_key": "jso_live_8f2c1d7e4b6a9035", "trusted_proxies": "10.0.0.0/8, fd00::/8"}
    return Gate(Settings(**defaults | overrides))


def admit(
    gate: Gate, peer: str | None, forwarded_for: bytes = b"", forwarded_proto: bytes = b"", scheme: str = "http"
) -> Client:
    """As a server says it that listens on an address; or on a Unix socket, for the peer `UNIX`."""
    server = ("/run/jobhook.sock", None) if peer == UNIX else ("192.0.2.1", 8000)
    client = None if peer in {UNIX, None} else (peer, 50000)
    return gate.admit({"client": client, "server": server, "scheme": scheme}, forwarded_for, forwarded_proto)


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


@pytest.mark.parametrize("peer", [None, "", "unix"])
def test_a_peer_that_is_not_known_is_not_believed(peer: str | None) -> None:
    """P3: it has reset its connection, so that nobody can say who it was."""
    with pytest.raises(PlainHttp):
        admit(gate(), peer, b"198.51.100.7", b"https")


def test_a_server_that_does_not_tell_where_it_listens_makes_nobody_a_proxy() -> None:
    """P3."""
    for scope in ({"client": None, "scheme": "http"}, {"client": None, "server": None, "scheme": "http"}):
        with pytest.raises(PlainHttp):
            gate().admit(scope, b"198.51.100.7", b"https")


def test_a_proxy_on_a_unix_socket_is_believed() -> None:
    assert admit(gate(), UNIX, b"198.51.100.7", b"https").https


# Name: X-Forwarded-For, X-Forwarded-Proto, whether the sender's own hop was HTTPS. 10.0.0.3 is the outer proxy.
CHAINS: dict[str, tuple[bytes, bytes, bool]] = {
    "both append": (b"198.51.100.7, 10.0.0.3", b"https, http", True),
    "both append, HTTPS inside": (b"198.51.100.7, 10.0.0.3", b"https, https", True),
    "both append, plain HTTP": (b"198.51.100.7, 10.0.0.3", b"http, http", False),
    "both append, plain HTTP, HTTPS inside": (b"198.51.100.7, 10.0.0.3", b"http, https", False),
    "both append, forged": (b"198.51.100.7, 10.0.0.3", b"https, http, http", False),
    "both append, forged, HTTPS inside": (b"198.51.100.7, 10.0.0.3", b"https, http, https", False),
    "both append, both forged": (b"10.0.0.9, 198.51.100.7, 10.0.0.3", b"https, http, http", False),
    "both append, the address forged": (b"192.0.2.1, 198.51.100.7, 10.0.0.3", b"http, https", False),
    "both append, the address forged, HTTPS": (b"192.0.2.1, 198.51.100.7, 10.0.0.3", b"https, http", True),
    "both append, more forged": (b"198.51.100.7, 10.0.0.3", b"https, https, https, http, https", False),
    "empty items": (b"198.51.100.7,, 10.0.0.3 ,", b", https,, http", True),
    "empty items, forged": (b"198.51.100.7, 10.0.0.3", b"https,, http, https", False),
    "the outer one sets, the inner one passes it on": (b"198.51.100.7, 10.0.0.3", b"https", True),
    "the outer one sets plain HTTP": (b"198.51.100.7, 10.0.0.3", b"http", False),
    "the inner one sets both": (b"198.51.100.7", b"https", True),
    "the inner one sets the address": (b"198.51.100.7", b"https, http", False),
    "three append": (b"198.51.100.7, 10.0.0.3, 10.0.0.4", b"https, http, http", True),
    "three append, plain HTTP": (b"198.51.100.7, 10.0.0.3, 10.0.0.4", b"http, https, https", False),
    "two of three append": (b"198.51.100.7, 10.0.0.3, 10.0.0.4", b"https, https", True),
    "two of three append, one of them plain HTTP": (b"198.51.100.7, 10.0.0.3, 10.0.0.4", b"https, http", False),
    "none says": (b"198.51.100.7, 10.0.0.3", b"", False),
    "an address with a port": (b"198.51.100.7:4711, 10.0.0.3:80", b"https, http", True),
    "IPv6": (b"[2001:db8::7]:4711, [fd00::3]", b"https, http", True),
    "an address that is unknown": (b"192.0.2.1, unknown", b"https, http", False),
    "an address that is unknown, HTTPS": (b"192.0.2.1, unknown, 10.0.0.3", b"http, https, http", True),
    "proxies only": (b"10.0.0.4, 10.0.0.3", b"https, http", True),
    "no address": (b"", b"https, http", False),
    "no address, HTTPS": (b"", b"http, https", True),
}


@pytest.mark.parametrize(("forwarded_for", "forwarded_proto", "https"), CHAINS.values(), ids=CHAINS)
def test_the_protocol_is_that_of_the_hop_whose_address_counts(
    forwarded_for: bytes, forwarded_proto: bytes, https: bool
) -> None:
    """P3: behind proxies that set or append both headers, nobody can claim another protocol than his own."""
    assert admit(gate(require_https=False), PROXY, forwarded_for, forwarded_proto).https is https


@given(
    claimed_for=st.lists(st.sampled_from(CLAIMS)), claimed_proto=st.lists(st.sampled_from(PROTOCOLS)), data=st.data()
)
def test_nobody_behind_proxies_that_append_claims_https(
    claimed_for: list[str], claimed_proto: list[str], data: st.DataObject
) -> None:
    """P3: however many proxies there are, and whatever the sender has written before they append."""
    inner = data.draw(st.lists(st.sampled_from(["10.0.0.3", "10.0.0.4", "fd00::3"]), max_size=3))
    inside = [data.draw(st.sampled_from(["http", "https"])) for _ in inner]
    for own in ("http", "https"):
        forwarded_for = ", ".join([*claimed_for, SENDER, *inner]).encode()
        forwarded_proto = ", ".join([*claimed_proto, own, *inside]).encode()
        admitted = admit(gate(require_https=False), PROXY, forwarded_for, forwarded_proto)
        assert admitted == Client(address=SENDER, https=own == "https", allowed=True)


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
    "quoted": (PROXY, b'"198.51.100.7"', "unknown"),
    "IPv6 with a zone": (PROXY, b"fe80::7%eth0", "fe80::7%eth0"),
    "Unix socket": (UNIX, b"198.51.100.7", SENDER),
    "Unix socket, no header": (UNIX, b"", "unknown"),
    "peer unknown": (None, b"198.51.100.7", "unknown"),
    "peer empty": ("", b"198.51.100.7", "unknown"),
    "peer called unix": ("unix", b"198.51.100.7", "unknown"),
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
        pytest.param(None, b"", id="peer unknown"),
        pytest.param(None, b"198.51.100.7", id="peer unknown, spoofed"),
        pytest.param("", b"198.51.100.7", id="peer empty, spoofed"),
        pytest.param(UNIX, b"", id="the proxy on a Unix socket itself"),
    ],
)
def test_refuses_who_is_not_allow_listed(peer: str | None, forwarded_for: bytes) -> None:
    """P3."""
    allowing = gate(require_https=False, allowed_ips="198.51.100.0/24")
    with pytest.raises(AddressNotAllowed):
        admit(allowing, peer, forwarded_for)


@pytest.mark.parametrize("proxies", ["::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "::ffff:a00:1/128", "::/0, 10.0.0.1"])
@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_an_address_may_be_listed_as_a_socket_for_both_families_shows_it(proxies: str, peer: str) -> None:
    """P10: it is what the log line of a refusal says of the load balancer."""
    listed = gate(trusted_proxies=proxies, allowed_ips="::ffff:198.51.100.0/120")
    assert admit(listed, peer, b"198.51.100.7", b"https").address == SENDER
    with pytest.raises(AddressNotAllowed):
        admit(listed, peer, b"198.51.101.7", b"https")


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


@pytest.mark.parametrize(
    "encoding",
    [b"", b"identity", b" Identity ", b"identity,IDENTITY", b",", b"chunked", b"identity, Chunked"],
    ids=repr,
)
def test_accepts_a_body_as_it_is(encoding: bytes) -> None:
    """P8."""
    refuse_encoded(encoding)
    refuse_encoded(b"", encoding)


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"identity, gzip", b"identity;", b"\xff"], ids=repr)
def test_refuses_an_encoded_body(encoding: bytes) -> None:
    with pytest.raises(ContentEncoded):
        refuse_encoded(encoding)
    with pytest.raises(ContentEncoded):
        refuse_encoded(b"identity", encoding)
