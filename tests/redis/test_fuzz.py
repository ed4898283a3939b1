"""Whatever bytes a stranger sends: an honest answer or none, nothing recorded, and the receiver lives on.

Requests go over real sockets to one real receiver. What is signed is accepted whatever it is (P8).
"""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import hypothesis
import orjson
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.cli.embedded import EmbeddedServer
from app.delivery.scheme import Scheme
from app.delivery.signature import sign
from app.main import openapi
from app.receiver.endpoint import PATH
from tests.support.stack import KEY, Stack

LIMIT = 2000
ANSWER_SECONDS = 0.2
"""How long it is listened for an answer before the sending side is closed. Nothing depends on it."""
END_SECONDS = 20.0
"""How long the receiver may take to end a connection: longer than any of its time-outs."""
EXAMPLES = 100
REFUSED = {400, 401, 403, 405, 408, 413, 415, 431}
TROUBLE = ("Traceback", "unexpected error", "Exception in", "Error")

many = hypothesis.settings(
    max_examples=EXAMPLES, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {"JOBHOOK_MAX_BODY_BYTES": str(LIMIT), "JOBHOOK_REJECTED_BYTES": "0"}
    with Stack(tmp_path_factory.mktemp("fuzz"), server.url, **environment) as stack:
        stack.start_receiver()
        yield stack


@pytest.fixture(autouse=True)
def unharmed(receiver: Stack) -> Iterator[None]:
    """After each test: the same process answers as before, and has met nothing that it did not expect."""
    receiver.redis.flushall()
    process = receiver.processes[0]
    yield
    assert process.poll() is None
    assert receiver.deliver(b'{"after":"all"}').status_code == 200
    logs = receiver.logs()
    assert not [line for line in logs.splitlines() if any(trouble in line for trouble in TROUBLE)]


def send(receiver: Stack, *parts: bytes) -> list[int]:
    """The statuses of all answers to what is sent, in as many pieces."""
    received = b""
    connection = socket.create_connection(("127.0.0.1", receiver.port), timeout=END_SECONDS)
    with closing(connection), suppress(OSError):  # it may have had enough before the last piece
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        connection.settimeout(ANSWER_SECONDS)
        with suppress(TimeoutError):
            received += connection.recv(65536)
        connection.settimeout(END_SECONDS)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


def recorded(receiver: Stack) -> int:
    """Keys in Redis, but for the one that says which API keys there are."""
    keys: Any = receiver.redis.keys()
    return sum(key != b"jobhook:keys" for key in keys)


token = st.text("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABC", min_size=1, max_size=30).map(str.encode)
known_names = st.sampled_from(
    b"X-Signature Content-Length Transfer-Encoding Content-Encoding Connection Upgrade Expect "
    b"X-Forwarded-For X-Forwarded-Proto Content-Type Host TE Trailer Cookie".split()
)
known_values = st.sampled_from(
    b"0 -1 +5 5 5,5 0x10 chunked gzip,chunked chunked,identity close keep-alive upgrade websocket h2c 100-continue "
    b"gzip identity http https ::1 [::1]:80 999.9.9.9 \xff\xfe 0000000000000000000000000000000000".split()
)
values = known_values | st.binary(max_size=60).filter(lambda value: not set(value) & set(b"\r\n"))
headers = st.lists(st.tuples(known_names | token, values), max_size=8)
methods = st.sampled_from([b"POST", b"GET", b"HEAD", b"PUT", b"CONNECT", b"TRACE", b"PRI", b"post"]) | token
paths = st.sampled_from(
    b"/webhooks/jobsiteon /webhooks/jobsiteon?x=1 /webhooks/jobsiteon/ /webhooks/../webhooks/jobsiteon "
    b"/webhooks/%6aobsiteon / * // /%00 /\xff http://h/p h:443 /healthz".split()
) | st.binary(min_size=1, max_size=40)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b""])
chunks = st.lists(st.binary(max_size=40), max_size=5).map(
    lambda parts: b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
)
bodies = st.binary(max_size=200) | chunks | chunks.map(lambda body: body + b"0\r\nX-Signature: 0\r\n\r\n")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request."""
    line = b" ".join([draw(methods), draw(paths), draw(versions)])
    lines = [name + b": " + value for name, value in draw(headers)]
    return b"\r\n".join([line, *lines, b"", draw(bodies)])


@many
@given(stream=st.lists(requests() | st.binary(max_size=100), min_size=1, max_size=3), cut=st.integers(0, 1000))
def test_any_bytes_get_an_honest_answer_or_none(receiver: Stack, stream: list[bytes], cut: int) -> None:
    """P3: whole or cut off anywhere, in one piece or two, pipelined."""
    sent = b"".join(stream)
    statuses = send(receiver, sent[:cut], sent[cut:])
    assert set(statuses) <= {100, 200, 404, *REFUSED}, (statuses, sent)
    assert recorded(receiver) == 0


@many
@given(more=headers, body=bodies, said=st.integers(-1, 2 * LIMIT), cut=st.integers(0, 300))
def test_no_forged_delivery_is_taken_for_one(
    receiver: Stack, more: list[tuple[bytes, bytes]], body: bytes, said: int, cut: int
) -> None:
    """P3: well-formed but for what is made up, and with a signature of the wrong key."""
    forged = sign(b"not the key, alas", body).encode()
    length = [(b"Content-Length", b"%d" % said)] if said >= 0 else []
    lines = [name + b": " + value for name, value in [(b"X-Signature", forged), *length, *more]]
    sent = b"\r\n".join([b"POST " + PATH.encode() + b" HTTP/1.1", b"Host: test", *lines, b"", body])
    statuses = send(receiver, sent[:-cut], sent[-cut:])
    # What follows a short body is a second request, to any path.
    assert set(statuses) <= {100, 404, *REFUSED}, (statuses, sent)
    assert recorded(receiver) == 0


@many
@given(
    body=st.binary(max_size=LIMIT),
    splits=st.lists(st.integers(1, LIMIT), max_size=4),
    more=st.lists(st.tuples(token, st.binary(max_size=40)), max_size=4),
)
def test_what_is_signed_is_accepted_however_it_comes(
    receiver: Stack, body: bytes, splits: list[int], more: list[tuple[bytes, bytes]]
) -> None:
    """P8: any bytes, in any chunks, with any further headers that HTTP allows."""
    ends = sorted({min(split, len(body)) for split in splits} | {len(body)})
    parts = [body[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]
    visible = [(b"X-Any-" + name, bytes(c for c in value if c == 9 or 32 <= c != 127)) for name, value in more]
    lines = [name + b": " + value for name, value in visible]
    signature = b"X-Signature: " + sign(KEY.encode(), body).encode()
    start = [b"POST " + PATH.encode() + b" HTTP/1.1", b"Host: test", signature, b"Transfer-Encoding: chunked"]
    chunked = [b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts]
    assert send(receiver, b"\r\n".join([*start, *lines, b"", b""]), *chunked, b"0\r\n\r\n") == [200]


@many
@given(number=st.integers(1, 12), unsigned=st.integers(0, 11))
def test_pipelined_requests_are_each_judged_by_themselves(receiver: Stack, number: int, unsigned: int) -> None:
    """A good one does not vouch for its neighbour."""
    stream, expected = b"", []
    for n in range(number):
        body = orjson.dumps({"pipelined": n})
        signature = sign(b"not the key, alas" if n == unsigned else KEY.encode(), body)
        head = f"POST {PATH} HTTP/1.1\r\nHost: test\r\nX-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        stream += head.encode() + body
        expected.append(401 if n == unsigned else 200)
    with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=END_SECONDS)) as connection:
        connection.sendall(stream)
        received = b""
        while len(statuses := re.findall(rb"HTTP/1\.1 (\d{3})", received)) < number:
            data = connection.recv(65536)
            assert data, received
            received += data
    assert [int(status) for status in statuses] == expected


@pytest.fixture(scope="module")
def document(receiver: Stack) -> schemathesis.BaseSchema:
    schema = schemathesis.openapi.from_dict(openapi(Scheme()))
    schema.config.update(base_url=f"http://127.0.0.1:{receiver.port}")
    return schema


READ = [("GET", path, GenerationMode.POSITIVE) for path in ("/healthz", "/readyz", "/metrics", PATH)]
DELIVER = [("POST", PATH, mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]


@pytest.mark.parametrize(("method", "path", "mode"), [*READ, *DELIVER])
@given(data=st.data())
@many
def test_every_answer_is_one_that_the_document_describes(
    document: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode, data: st.DataObject
) -> None:
    """P3: for requests made from the document, within and beyond what it allows."""
    case = data.draw(document[path][method].as_strategy(generation_mode=mode))
    case.call_and_validate(
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
            unsupported_method,
        ]
    )
