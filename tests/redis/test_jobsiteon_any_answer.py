"""No answer whatever makes anything but a correct result or an ApiError leave the client (bytes, headers, timing)."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from redis import Redis

from app.config.settings import Settings
from app.simulator import bytes_server
from tests.support.world import KINDS, Client, Driven, Kind, Plain, at
from workers.jobsiteon import ApiError
from workers.jobsiteon import errors as api_errors
from workers.retry import Permanent, RetryAfter

TIMEOUT_SECONDS = 0.3
"""Of a call that may fail, so that slow answers are too slow soon."""

OBJECTS = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**80), 2**80)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
).filter(lambda found: "data" not in found)
NAMES = st.sampled_from(
    b"Content-Length Content-Type Content-Encoding Transfer-Encoding Retry-After Location Link Connection Date "
    b"Cache-Control ETag Vary Age Expires Last-Modified Set-Cookie WWW-Authenticate Trailer Upgrade".split()
)
VALUES = st.binary(max_size=30) | st.sampled_from(
    [
        *(b"max-age=60", b"max-age=" + b"9" * 400, b"no-store, max-age=,", b"-1", b"0", b"2", b"1e9", b"*", b"chunked"),
        *(b"gzip", b"gzip, gzip", b"deflate", b"identity", b"br", b"//", b"http://[", b"/v1/contacts", b"ftp://x"),
        *(
            b"Wed, 99 Foo 2026",
            b"Fri, 31 Dec 9999 23:59:59 -2359",
            b"Mon, 01 Jan 0001 00:00:00 GMT",
            "é=é; Path=/".encode(),
        ),
        *(b'<x>;rel="next', b"<?page=2>; rel=next", b"<//[>; rel=next", b'"etag"', b"close", b"websocket"),
    ]
)
STATUSES = st.sampled_from(
    b"100 101 199 200 200 201 204 206 301 302 304 307 401 404 408 409 425 429 500 503 599 600 99 1000 -1 abc".split()
)
BODIES = st.binary(max_size=60) | st.sampled_from(
    [
        *(
            b"{}",
            b"[]",
            b"null",
            b'{"id":',
            b"5\r\n{}",
            b"2\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
            b"[" * 100,
        ),
        *(
            b"\xef\xbb\xbf{}",
            '{"a":"é"}'.encode("utf-16"),
            b'{"a":"\\ud800"}',
            b'{"a":NaN}',
            b'{"a":1e999}',
            b"9" * 5000,
        ),
        *(gzip.compress(b"{}"), gzip.compress(b"{}")[:-4], gzip.compress(gzip.compress(b"{}"))),
        *(
            b'{"data":[{}],"next":1}',
            b'{"data":[1],"next":"//["}',
            b'{"data":[],"has_more":true}',
            b'{"data":{"data":[]}}',
        ),
        *(
            b'{"items":[1],"page":1,"total_pages":' + b"9" * 20 + b"}",
            b'{"data":[1],"total":"x","offset":-1,"limit":[]}',
        ),
    ]
)
ANYTHING = st.binary(max_size=200) | st.builds(
    lambda version, status, headers, body: b"\r\n".join(
        [version + b" " + status + b" X", *(name + b": " + value for name, value in headers), b"", body]
    ),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"ICY"]),
    STATUSES,
    st.lists(st.tuples(NAMES | st.binary(max_size=10), VALUES), max_size=6),
    BODIES,
)
FORMS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "length": lambda body: (b"Content-Length: %d" % len(body), body),
    "close": lambda body: (b"Connection: close", body),
    "chunks": lambda body: (
        b"Transfer-Encoding: chunked",
        b"".join(b"%x\r\n%s\r\n" % (len(body[n : n + 7]), body[n : n + 7]) for n in range(0, len(body), 7))
        + b"0\r\n\r\n",
    ),
}
"""How a body may be framed."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


def client_of(kind: Kind, settings: Settings, url: str, timeout: float = TIMEOUT_SECONDS) -> Client:
    of = at(settings, url, api_timeout=f"{timeout}s", api_rate_limit=100_000)
    return Plain(of) if kind == "sync" else Driven(of)


def test_whatever_comes_and_however(redis: "Redis", settings: Settings, kind: Kind) -> None:
    """In pieces, with pauses, with a reset in the end; read, listed and written."""
    with bytes_server() as server:
        client = client_of(kind, settings, server.url)

        @hypothesis.settings(max_examples=50)
        @hypothesis.given(
            raw=ANYTHING,
            piece=st.sampled_from([0, 0, 1, 7]),
            pause=st.sampled_from([0.0, 0.0, 0.0, 0.02, 1.0]),
            reset=st.booleans(),
        )
        def receive(raw: bytes, piece: int, pause: float, reset: bool) -> None:
            redis.flushall()  # neither its cache nor a pause is to carry over
            server.answer(raw, piece=piece, pause=pause, reset=reset)
            calls: list[tuple[type, Callable[[], Any]]] = [
                (dict, lambda: client.get("/contacts/con_1001")),
                (dict, lambda: client.get("/contacts/con_1001")),  # with what is kept by now
                (list, lambda: client.items("/contacts")),
                (dict, lambda: client.create("/contacts", {})),
                (dict, lambda: client.update("/contacts/con_1001", {})),
            ]
            for wanted, call in calls:
                try:
                    assert type(call()) is wanted
                except ApiError as error:
                    assert type(error).__module__ == api_errors.__name__  # noqa: PT017 - either is fine
                    assert not isinstance(error, Permanent) or not isinstance(error, RetryAfter)  # noqa: PT017

        receive()
        client.close()


def test_what_is_right_is_understood_in_every_form(redis: "Redis", settings: Settings, kind: Kind) -> None:
    with bytes_server() as server:
        client = client_of(kind, settings, server.url, 20.0)  # the server hangs up: a try may find that

        @hypothesis.settings(max_examples=100)
        @hypothesis.given(
            value=OBJECTS,
            form=st.sampled_from(sorted(FORMS)),
            coding=st.sampled_from([b"", b"gzip", b"x-gzip", b"identity"]),
            text=st.sampled_from(["utf-8", "utf-8-sig", "ascii"]),
            piece=st.sampled_from([0, 11]),
            cookie=st.sampled_from([b"", b"name=\xe9", b"a=1; Path=/; Domain=.test"]),
        )
        def receive(value: dict[str, Any], form: str, coding: bytes, text: str, piece: int, cookie: bytes) -> None:
            redis.flushall()
            body = json.dumps(value, ensure_ascii=text == "ascii").encode("utf-8" if text == "ascii" else text)
            if coding.endswith(b"gzip"):
                body = gzip.compress(body)
            header, framed = FORMS[form](body)
            extra = [b"Content-Encoding: " + coding] if coding else []
            extra += [b"Set-Cookie: " + cookie] if cookie else []
            server.answer(b"\r\n".join([b"HTTP/1.1 200 OK", header, *extra, b"", framed]), piece=piece)
            assert client.get("/contacts/con_1001") == value

        receive()
        client.close()


@pytest.mark.parametrize("where", ["head", "body", "silence"])
def test_an_answer_byte_by_byte_ends_with_the_calls_time(
    redis: "Redis", settings: Settings, kind: Kind, where: str
) -> None:
    """Each byte comes in time; all together do not, also in the head, and also of a write."""
    head = b"HTTP/1.1 200 OK\r\nX: " + (b"x" * 1000 if where == "head" else b"x") + b"\r\nContent-Length: 1000\r\n\r\n"
    with bytes_server() as server:
        server.answer(
            head + b" " * 1000, piece=1 if where == "head" else len(head), pause=0.1 if where == "head" else 60
        )
        if where == "body":
            server.answer(head + b" " * 1000, piece=20, pause=0.1)
        client = client_of(kind, settings, server.url)
        calls: list[Callable[[], object]] = [
            lambda: client.get("/contacts/con_1001"),
            lambda: client.create("/contacts", {}),
        ]
        for call in calls:
            with pytest.raises(api_errors.Unreachable):
                call()
        client.close()
