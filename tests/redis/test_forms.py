"""Every form of a request, on real connections: what HTTP allows is accepted, what is malformed gets a 400 (P8).

The tables follow RFC 9110 and RFC 9112. No answer is a 500, and no request is left without one.
"""

from collections.abc import Iterator
from contextlib import suppress

import orjson
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from app.receiver.http import MAX_PIPELINED
from tests.support.raw import BODY, LENGTH, SIGNATURE, Connection, chunked, request
from tests.support.stack import KEY, Stack

N = len(BODY)
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
IN_TWO = b"5\r\n%b\r\n%x\r\n%b\r\n" % (BODY[:5], N - 5, BODY[5:])
END = b"0\r\n\r\n"
PROBE = request(method="GET", target="/healthz", signature=None, length=None, body=b"")


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("forms"), server.url) as stack:
        stack.start_receiver()
        yield stack
        assert "Traceback" not in stack.logs()
        assert not stack.log_lines("unexpected error")


def name(word: str) -> str:
    return SIGNATURE.replace("X-Signature", word)


ACCEPTED = {
    # RFC 9110, 7.8: "a server MAY ignore a received Upgrade header field"
    "upgrade to h2c": request(*H2C),
    "upgrade to h2c, in chunks": chunked(*H2C, body=IN_TWO + END),
    "upgrade to h2c, with trailers": chunked(*H2C, body=IN_TWO + b"0\r\nUpgrade: h2c\r\n\r\n"),
    "upgrade to a WebSocket": request(
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGVzdA=="
    ),
    "upgrade to TLS": request("Connection: upgrade", "Upgrade: TLS/1.0"),
    "upgrade to one of several": request("Connection: keep-alive, Upgrade", "Upgrade: HTTP/3.0, IRC/6.9, h2c"),
    "upgrade in several lines": request("Connection: a", "UPGRADE: h2c", "Connection: Upgrade", "upgrade: foo/2"),
    "upgrade without Connection": request("Upgrade: h2c"),
    "upgrade in Connection only": request("Connection: Upgrade"),
    "upgrade and absolute form": request(*H2C, target=f"http://test{PATH}"),
    # RFC 9110, 10.1.1
    "another expectation": request("Expect: the-unexpected"),
    # RFC 9112, 3.2
    "absolute form": request(target=f"http://test{PATH}"),
    "absolute form, https": request(target=f"https://test:443{PATH}"),
    "absolute form with a query": request(target=f"http://test{PATH}?a=b"),
    "absolute form in upper case": request(target=f"HTTP://TEST{PATH}"),
    "absolute form of another host": request(target=f"http://elsewhere.example:81{PATH}"),
    "absolute form with an underscore": request(target=f"http://job_hook:8000{PATH}"),
    "absolute form with IPv6": request(target=f"http://[::1]:8000{PATH}"),
    "with a query": request(target=f"{PATH}?a=b&c=%20&d=/webhooks"),
    "with an empty query": request(target=f"{PATH}?"),
    "with a bad query": request(target=f"{PATH}?%zz&{{}}|^"),
    "with a long query": request(target=f"{PATH}?{'q' * 50_000}"),
    "percent-encoded letters": request(target="/webhooks/%6aobsite%6Fn"),
    "with a trailing slash": request(target=f"{PATH}/"),
    "with a trailing slash and a query": request(target=f"{PATH}/?a=b"),
    # RFC 9110, 2.5 and 7.2
    "HTTP/1.2": request(version=" HTTP/1.2"),
    "an empty Host": request(host="Host:"),
    "Host with a port": request(host="Host: hooks.example.com:8443"),
    "Host with IPv6": request(host="Host: [2001:db8::1]:80"),
    "Host with an underscore": request(host="host: job_hook"),
    # RFC 9112, 2.2 and 5; RFC 9110, 5
    "an empty line before": b"\r\n" + request(),
    "empty lines before": b"\r\n\r\n\r\n" + request(),
    "names in lower case": request(signature=name("x-signature"), length=LENGTH.lower()),
    "names in upper case": request(signature=name("X-SIGNATURE"), length=LENGTH.upper()),
    "an empty value before the signature": request(host="Host: test\r\nX-Empty:"),
    "a blank value before the signature": request(host="Host: test\r\nX-Blank: \t "),
    "no space before values": request(signature=SIGNATURE.replace(": ", ":"), length=LENGTH.replace(": ", ":")),
    "spaces around values": request(signature=f"{SIGNATURE.replace(': ', ':   ')}  ", length=f"{LENGTH}  "),
    "tabs around values": request(
        signature=SIGNATURE.replace(": ", ":\t") + "\t", length=LENGTH.replace(": ", ":\t ") + " \t"
    ),
    "values of other alphabets": request("X-Any: caf\xe9 \x80\xff"),
    "names with every character allowed": request("!#$%&'*+-.^_`|~09: x"),
    "the signature under a look-alike as well": request(name("X_Signature").replace("=", "0")),
    "a long head": request(f"X-Long: {'a' * 60_000}"),
    "many headers": request(*(f"X-{n}: {n}" for n in range(3000))),
    # RFC 9112, 6: lengths
    "Content-Length with leading zeros": request(length=f"Content-Length: 000{N}"),
    "Content-Length with many zeros": request(length=f"Content-Length: {'0' * 40}{N}"),
    "in chunks": chunked(body=IN_TWO + END),
    "in one-byte chunks": chunked(body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + END),
    "chunked in capitals": chunked(coding="TRANSFER-ENCODING: Chunked", body=IN_TWO + END),
    "chunked with spaces around": chunked(coding="Transfer-Encoding:  chunked  ", body=IN_TWO + END),
    "identity, chunked": chunked(coding="Transfer-Encoding: identity, chunked", body=IN_TWO + END),
    "sizes with zeros, in upper case": chunked(body=b"00%X\r\n%b\r\n000\r\n\r\n" % (N, BODY)),
    "sizes padded with spaces": chunked(body=b"%x   \r\n%b\r\n0 \r\n\r\n" % (N, BODY)),
    "chunk extensions": chunked(body=b'%x;a=b;flag;c="d; \\"e\\""\r\n%b\r\n0;last\r\n\r\n' % (N, BODY)),
    "chunk extensions after a space": chunked(body=b"%x ;a=b\r\n%b\r\n0 ;c\r\n\r\n" % (N, BODY)),
    "trailers": chunked("Trailer: X-Sum", body=IN_TWO + b"0\r\nX-Sum: 1\r\nX-Signature: 0\r\nHost: b\r\n\r\n"),
    "empty trailers": chunked(body=IN_TWO + b"0\r\nX-Sum:\r\nX-Blank: \t\r\n\r\n"),
    # RFC 9112, 9, and RFC 9110, 7.6, 8.4 and 10.1.4
    "options of the connection": request("Connection: , TE, Keep-Alive,,", "TE: trailers", "Keep-Alive: timeout=5"),
    "an empty Connection": request("Connection:"),
    "the signature named in Connection": request("Connection: X-Signature"),
    "identity": request("Content-Encoding: identity"),
    "identity in a list": request("Content-Encoding: identity, Identity ,"),
    "identity in several lines": request("Content-Encoding: identity", "content-encoding: IDENTITY"),
    "an empty Content-Encoding": request("Content-Encoding:"),
    "conditions and ranges": request("If-Match: *", "If-None-Match: *", "Range: bytes=0-1", "Max-Forwards: 0"),
    "a form's type": request("Content-Type: multipart/form-data; boundary=x"),
}

ACCEPTED_AND_CLOSED = {
    "Connection: close": request("Connection: close"),
    "close in a list": request("Connection: keep-alive, Close"),
    "close in a second line": request("Connection: a", "Connection: close"),
    "close and upgrade": request("Connection: close, Upgrade", "Upgrade: h2c"),
    "HTTP/1.0": request(version=" HTTP/1.0"),
    "HTTP/1.0 without Host": request(version=" HTTP/1.0", host=None),
    "HTTP/1.0 with keep-alive": request("Connection: keep-alive", version=" HTTP/1.0"),
    "HTTP/1.0 in chunks": chunked(version=" HTTP/1.0", body=IN_TWO + END),
    "HTTP/1.0 with an expectation": request("Expect: 100-continue", version=" HTTP/1.0"),
    "HTTP/1.0 with an upgrade": request("Connection: Upgrade", "Upgrade: h2c", version=" HTTP/1.0"),
}

MALFORMED = {
    # RFC 9112, 2.3 and 3
    "no version": request(version=""),
    "HTTP/0.9": request(version=" HTTP/0.9"),
    "HTTP/2.0": request(version=" HTTP/2.0"),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http in lower case": request(version=" http/1.1"),
    "no such protocol": request(version=" SIP/1.1"),
    "a method that nobody knows": request(method="DELIVER"),
    "a method in lower case": request(method="post"),
    "a space at the end of the line": request(version=" HTTP/1.1 "),
    "tabs in the line": request(target=f"\t{PATH}", version="\tHTTP/1.1"),
    "a space in the path": request(target="/webhooks/job siteon"),
    "bytes in the path": request(target="/webhooks/jobsite\xf6n"),
    "a target without a slash": request(target="webhooks/jobsiteon"),
    "an authority": request(target="test:80"),
    "another scheme": request(target=f"ftp://test{PATH}"),
    "absolute form without a host": request(target=f"http://{PATH}"),
    # RFC 9112, 3.2: "A server MUST respond with a 400"
    "no Host": request(host=None),
    "no Host in absolute form": request(host=None, target=f"http://test{PATH}"),
    "two Hosts": request("Host: other"),
    "the same Host twice": request("Host: test"),
    "two Hosts in HTTP/1.0": request("Host: other", version=" HTTP/1.0"),
    "an invalid Host": request(host="Host: te st"),
    "a URL for a Host": request(host="Host: http://test/"),
    "a list of Hosts": request(host="Host: a, b"),
    "bytes in Host": request(host="Host: b\xfccher.example"),
    "no Host in an upgrade": request(*H2C, host=None),
    # RFC 9112, 2.2 and 5
    "bare LF": request().replace(b"\r\n", b"\n"),
    "one bare LF": request().replace(b"test\r\n", b"test\n"),
    "bare CR": request("X-Any: a\rX-Other: b"),
    "a folded line": request("X-Any: a\r\n b"),
    "a folded line, with a tab": request("X-Any: a\r\n\tb"),
    "a first line that is folded": request(version=" HTTP/1.1\r\n X: a"),
    "a space before the colon": request("X-Any : a"),
    "a signature with a space before the colon": request(signature=name("X-Signature ")),
    "no name": request(": a"),
    "no colon": request("X-Any"),
    "NUL in a value": request("X-Any: a\x00b"),
    "a control character in a value": request("X-Any: a\x01b"),
    "DEL in a value": request("X-Any: a\x7fb"),
    "bytes in a name": request("X-\xe9: a"),
    # RFC 9112, 6: what could be read in two ways
    "Content-Length and Transfer-Encoding": request("Transfer-Encoding: chunked", body=IN_TWO + END),
    "Transfer-Encoding and Content-Length": chunked(LENGTH, body=IN_TWO + END),
    "both in an upgrade": request(*H2C, "Transfer-Encoding: chunked", body=IN_TWO + END),
    "both in HTTP/1.0": request("Transfer-Encoding: chunked", version=" HTTP/1.0", body=IN_TWO + END),
    "Content-Length twice": request(LENGTH),
    "two Content-Lengths": request("Content-Length: 5"),
    "a list of Content-Lengths": request(length=f"{LENGTH}, {N}"),
    "a signed Content-Length": request(length=f"Content-Length: +{N}"),
    "a negative Content-Length": request(length="Content-Length: -1"),
    "a hexadecimal Content-Length": request(length="Content-Length: 0x16"),
    "a broken Content-Length": request(length="Content-Length: 2 2"),
    "an empty Content-Length": request(length="Content-Length:"),
    "an unthinkable Content-Length": request(length=f"Content-Length: {'9' * 30}"),
    "another coding last": chunked(coding="Transfer-Encoding: chunked, gzip", body=IN_TWO + END),
    "only another coding": chunked(coding="Transfer-Encoding: gzip", body=IN_TWO + END),
    "chunked twice": chunked(coding="Transfer-Encoding: chunked, chunked", body=IN_TWO + END),
    "chunked in two lines": chunked("Transfer-Encoding: chunked", body=IN_TWO + END),
    "something like chunked": chunked(coding="Transfer-Encoding: xchunked", body=IN_TWO + END),
    "chunked with a parameter": chunked(coding="Transfer-Encoding: chunked;q=1", body=IN_TWO + END),
    "an empty Transfer-Encoding": request("Transfer-Encoding:"),
    "no size of a chunk": chunked(body=b"\r\n" + BODY + b"\r\n" + END),
    "a negative size": chunked(body=b"-1\r\n" + BODY + b"\r\n" + END),
    "a size with 0x": chunked(body=b"0x%x\r\n%b\r\n" % (N, BODY) + END),
    "a size beyond 64 bits": chunked(body=b"f" * 17 + b"\r\n" + BODY),
    "a chunk that is longer than its size": chunked(body=b"5\r\n" + BODY + b"\r\n" + END),
    "a chunk that ends in LF": chunked(body=b"%x\r\n%b\n" % (N, BODY) + END),
    "a size that ends in LF": chunked(body=b"%x\n%b\r\n" % (N, BODY) + END),
    "LF in a chunk extension": chunked(body=b"%x;a\n%b\r\n" % (N, BODY) + END),
    # Not HTTP
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "the PROXY protocol": b"PROXY TCP4 198.51.100.1 10.0.0.1 35646 80\r\n" + request(),
}

REFUSED = {
    "the signature under another name": (request(signature=name("X_Signature")), 401),
    "the signature in a trailer": (
        chunked(signature=None, body=IN_TWO + b"0\r\n" + SIGNATURE.encode() + b"\r\n\r\n"),
        401,
    ),
    "compressed": (request("Content-Encoding: gzip"), 415),
    "compressed in a list": (request("Content-Encoding: identity, br"), 415),
    "compressed for the transfer": (chunked(coding="Transfer-Encoding: gzip, chunked", body=IN_TWO + END), 415),
    "another method": (request(method="PUT"), 405),
    "OPTIONS": (request(method="OPTIONS", length=None, body=b""), 405),
    "TRACE": (request(method="TRACE", length=None, body=b""), 405),
    "CONNECT": (request(method="CONNECT", target="test:443", length=None, body=b""), 405),
    "CONNECT, with bytes for the tunnel": (request(method="CONNECT", target="test:443") + b"\x16\x03\x01", 405),
    "CONNECT to the path": (request(method="CONNECT", length=None, body=b""), 405),
    "the server as a whole": (request(method="OPTIONS", target="*", length=None, body=b""), 404),
    "a POST to the server as a whole": (request(target="*"), 404),
    "a path with dots in it": (request(target="/webhooks/./jobsiteon"), 404),
}


@pytest.mark.parametrize("sent", ACCEPTED.values(), ids=ACCEPTED)
def test_every_form_is_accepted(receiver: Stack, sent: bytes) -> None:
    """P8: and the connection goes on behind the body, which has been read to its end."""
    with Connection(receiver.port) as connection:
        connection.send(sent + PROBE)
        assert connection.answer().status == 200
        assert connection.answer().body == b'{"status":"ok"}'


@pytest.mark.parametrize("form", [form for form, sent in ACCEPTED.items() if len(sent) < 1000])
def test_every_form_is_accepted_byte_by_byte(receiver: Stack, form: str) -> None:
    """P8."""
    with Connection(receiver.port) as connection:
        for byte in ACCEPTED[form]:
            connection.send(bytes([byte]))
        assert connection.answer().status == 200
        connection.send(PROBE)
        assert connection.answer().body == b'{"status":"ok"}'


@pytest.mark.parametrize("sent", ACCEPTED_AND_CLOSED.values(), ids=ACCEPTED_AND_CLOSED)
def test_who_wants_no_more_gets_no_more(receiver: Stack, sent: bytes) -> None:
    """P8: accepted, and closed after the only answer; what is pipelined behind it is not."""
    with Connection(receiver.port) as connection:
        connection.send(sent + PROBE)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_told_so(receiver: Stack, sent: bytes) -> None:
    """P3: by one answer, after which the connection is closed."""
    with Connection(receiver.port) as connection:
        connection.send(sent)
        answer = connection.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.headers["content-type"] == "application/problem+json"
        assert orjson.loads(answer.body)["type"] == "urn:jobhook:problem:malformed"
        assert connection.rest() == b""


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_by_its_reason(receiver: Stack, sent: bytes, status: int) -> None:
    """P3."""
    with Connection(receiver.port) as connection:
        connection.send(sent)
        answer = connection.answer()
        assert answer.status == status
        assert orjson.loads(answer.body)["status"] == status


@pytest.mark.parametrize("length", ["Content-Length: 0", None])
@pytest.mark.parametrize("upgrade", [(), H2C], ids=["plain", "upgrade"])
def test_an_empty_body_is_accepted(receiver: Stack, length: str | None, upgrade: tuple[str, ...]) -> None:
    """P8: with and without a length, and as a chunk."""
    signature = f"X-Signature: {sign(KEY.encode(), b'')}"
    with Connection(receiver.port) as connection:
        connection.send(request(*upgrade, signature=signature, length=length, body=b""))
        assert connection.answer().status == 200
        connection.send(chunked(*upgrade, signature=signature, body=END))
        assert connection.answer().status == 200


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "EXPECT: 100-Continue", "Expect: other, 100-continue"])
@pytest.mark.parametrize("upgrade", [(), H2C], ids=["plain", "upgrade"])
def test_who_asks_first_is_told_to_go_on(receiver: Stack, expect: str, upgrade: tuple[str, ...]) -> None:
    """P8: whether it waits for that or not (RFC 9110, 10.1.1)."""
    sent = request(expect, *upgrade)
    with Connection(receiver.port) as connection:
        connection.send(sent[:-N])
        assert connection.answer().status == 100
        connection.send(BODY)
        assert connection.answer().status == 200
        connection.send(sent)
        assert [connection.answer().status, connection.answer().status] == [100, 200]


def test_who_asks_first_and_would_be_refused_need_not_send(receiver: Stack) -> None:
    """P3."""
    with Connection(receiver.port) as connection:
        connection.send(request("Expect: 100-continue", length=f"Content-Length: {10**9}", body=b""))
        assert connection.answer().status == 413
        assert connection.rest() == b""


def test_pipelined_requests_are_answered_in_order_whatever_they_ask_for(receiver: Stack) -> None:
    """P8: an Upgrade in the middle loses neither its own body nor what comes behind it."""
    stream = request() + request(*H2C) + PROBE + chunked(*H2C, body=IN_TWO + END) + request(signature=None) + request()
    with Connection(receiver.port) as connection:
        connection.send(stream * 2)
        assert [connection.answer().status for _ in range(12)] == [200, 200, 200, 200, 401, 200] * 2


@pytest.mark.parametrize("malformed", ["no version", "TLS", "no Host", "two Content-Lengths", "bare LF"])
def test_what_is_malformed_takes_no_answer_from_those_before(receiver: Stack, malformed: str) -> None:
    """P8: they are answered, and the connection ends."""
    with Connection(receiver.port) as connection:
        connection.send(request() * 3 + MALFORMED[malformed] + request())
        answers = [connection.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
        assert connection.rest() == b""


def test_upgrades_without_end_cost_no_more_than_other_requests(receiver: Stack) -> None:
    """P3: each is parsed twice, but no more of them than may be pipelined."""
    upgrade = request(*H2C, method="GET", target="/healthz", signature=None, length=None, body=b"")
    with Connection(receiver.port) as connection:
        connection.send(upgrade * (MAX_PIPELINED + 1))
        assert [connection.answer().status for _ in range(MAX_PIPELINED + 1)] == [200] * (MAX_PIPELINED + 1)
    with Connection(receiver.port) as connection:
        with suppress(ConnectionError):
            connection.send(upgrade * 1000)
        assert connection.rest().count(b"HTTP/1.1 ") <= MAX_PIPELINED + 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", [PATH, f"{PATH}/", "/", "/healthz", "/readyz", "/metrics", "http://test"])
def test_what_can_be_read_can_be_read_without_its_body(receiver: Stack, method: str, target: str) -> None:
    with Connection(receiver.port) as connection:
        connection.send(request(method=method, target=target, signature=None, length=None, body=b"") + PROBE)
        answer = connection.answer(bodiless=method == "HEAD")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 0
        assert connection.answer().body == b'{"status":"ok"}'
