"""The webhook endpoint over real HTTP: what is refused, in which order, and what never is."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.delivery.scheme import Scheme
from app.delivery.signature import sign
from app.main import create_app, openapi
from app.receiver.endpoint import PATH
from app.receiver.refusals import REFUSALS
from tests.support.stack import KEY, Stack

LIMIT = 10_000
LOCAL_PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One receiver for all tests here, strict as in production."""
    environment = {
        "JOBHOOK_REQUIRE_HTTPS": "true",
        "JOBHOOK_ALLOWED_IPS": "198.51.100.0/24",
        "JOBHOOK_MAX_BODY_BYTES": str(LIMIT),
    }
    with Stack(tmp_path_factory.mktemp("receiver"), server.url, **environment) as stack:
        stack.start_receiver()
        yield stack


def post(
    receiver: Stack, body: bytes = b"{}", headers: dict[str, str] | None = None, **changed: str | None
) -> httpx.Response:
    """A good delivery but for what is changed; None leaves a header out."""
    good = {"X-Signature": sign(KEY.encode(), body), **LOCAL_PROXY} if headers is None else headers
    wanted = good | {name.replace("_", "-"): value for name, value in changed.items()}
    return httpx.post(
        receiver.url, content=body, headers={n: v for n, v in wanted.items() if v is not None}, timeout=10
    )


def refused(answer: httpx.Response, status: int, slug: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == f"urn:jobhook:problem:{slug}"
    assert answer.json()["status"] == status


def raw(receiver: Stack, request: bytes) -> bytes:
    """The first bytes of the answer to a request written by hand."""
    with closing(socket.create_connection(("127.0.0.1", receiver.port), timeout=20)) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def test_an_answer_comes_in_one_piece(receiver: Stack) -> None:
    """Head and body in one segment: two would cost twice the system calls, on both sides."""
    body = b'{"type":"job.created"}'
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Signature: {sign(KEY.encode(), body)}\r\nContent-Length: {len(body)}\r\n"
    )
    proxy = "".join(f"{name}: {value}\r\n" for name, value in LOCAL_PROXY.items())
    answer = raw(receiver, f"{head}{proxy}\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] in {"accepted", "duplicate"}


def head(*lines: str, signature: str = "") -> bytes:
    forwarded = [f"{name}: {value}" for name, value in LOCAL_PROXY.items()]
    return "\r\n".join(
        [f"POST {PATH} HTTP/1.1", "Host: test", *forwarded, f"X-Signature: {signature}", *lines, "", ""]
    ).encode()


def test_a_good_delivery_gets_200_and_its_id(receiver: Stack) -> None:
    answer = post(receiver, b'{"good":1}')
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"status", "id"}
    assert len(answer.json()["id"]) == 32


@pytest.mark.parametrize(
    "signature",
    [None, "", "0" * 64, "sha1=" + "0" * 40, "x" * 5000, f"{'0' * 64}, {'0' * 64}", "\xff\xfe"],
    ids=["missing", "empty", "wrong", "sha1", "long", "list", "not ascii"],
)
def test_every_bad_signature_gets_the_same_401(receiver: Stack, signature: str | None) -> None:
    """P3: the answers differ in nothing."""
    headers = dict(LOCAL_PROXY)
    content = b'{"bad":1}'
    sent = [(name, value.encode("latin-1")) for name, value in headers.items()]
    if signature is not None:
        sent.append(("X-Signature", signature.encode("latin-1")))
    answer = httpx.post(receiver.url, content=content, headers=[(n.encode(), v) for n, v in sent])
    refused(answer, 401, "unauthentic")
    reference = post(receiver, content, X_Signature="0" * 64)
    assert answer.content == reference.content
    assert answer.headers.keys() == reference.headers.keys()


def test_a_repeated_signature_is_refused_even_if_both_are_right(receiver: Stack) -> None:
    """P3."""
    signature = sign(KEY.encode(), b"{}")
    headers = [("X-Signature", signature), ("X-Signature", signature), *LOCAL_PROXY.items()]
    refused(httpx.post(receiver.url, content=b"{}", headers=headers), 401, "unauthentic")


def test_plain_http_is_refused(receiver: Stack) -> None:
    """P3."""
    refused(post(receiver, X_Forwarded_Proto="http"), 403, "https-required")
    refused(post(receiver, X_Forwarded_Proto=None), 403, "https-required")


def test_an_address_that_is_not_listed_is_refused(receiver: Stack) -> None:
    """P3."""
    refused(post(receiver, X_Forwarded_For="203.0.113.9"), 403, "address-not-allowed")
    refused(post(receiver, X_Forwarded_For="198.51.100.7, 203.0.113.9"), 403, "address-not-allowed")
    assert post(receiver, X_Forwarded_For="203.0.113.9, 198.51.100.7").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(receiver: Stack, method: str) -> None:
    answer = httpx.request(method, receiver.url, headers=LOCAL_PROXY)
    refused(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_an_encoded_body_is_refused(receiver: Stack) -> None:
    """P8 names it as the exception."""
    refused(post(receiver, Content_Encoding="gzip"), 415, "content-encoded")
    assert post(receiver, Content_Encoding="identity").status_code == 200


def test_a_body_over_the_limit_is_refused(receiver: Stack) -> None:
    """P3: by what it says, and by what it is."""
    assert post(receiver, b"x" * LIMIT).status_code == 200
    refused(post(receiver, b"x" * (LIMIT + 1)), 413, "body-too-large")
    answer = raw(receiver, head(f"Content-Length: {'9' * 30}"))
    assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
    chunk = b"%x\r\n%s\r\n" % (LIMIT, b"x" * LIMIT)
    assert raw(receiver, head("Transfer-Encoding: chunked") + chunk + chunk).startswith(b"HTTP/1.1 413")


def test_a_slow_body_is_given_up(receiver: Stack) -> None:
    """P3, P6: with the connection closed, though its client would have gone on."""
    answer = raw(receiver, head("Content-Length: 100") + b"x")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()


def test_a_client_that_goes_away_leaves_nothing(receiver: Stack) -> None:
    before = receiver.redis.zcard("jobhook:open")
    with closing(socket.create_connection(("127.0.0.1", receiver.port))) as connection:
        connection.sendall(head("Content-Length: 100") + b"x")
    assert post(receiver, b'{"after":1}').status_code == 200
    assert receiver.redis.zcard("jobhook:open") <= before + 1
    assert not receiver.log_lines("unexpected error")


@pytest.mark.parametrize(
    ("body", "type"),
    [
        (b"", "unknown"),
        (b"not json", "unknown"),
        (b"\xff\xfe\x00", "unknown"),
        (b"[" * 10_000, "unknown"),
        (b'{"type":"a.b","n":' + b"1" * 5000 + b"}", "unknown"),
        (b'{"type":"a.b","n":NaN}', "a.b"),
        (b'{"type":"a.b","type":"c.d"}', "c.d"),
        (b'{"type":"a.b","event_id":"\\ud800"}', "a.b"),
        (b'\xef\xbb\xbf{"type":"a.b","bom":1}', "a.b"),
        (b'{"type":"a.b","event_id":12345}', "a.b"),
        (b'{"type":7}', "unknown"),
        (b'{"type":"' + b"t" * 5000 + b'"}', "unknown"),
        (b"null", "unknown"),
        (b"[1,2]", "unknown"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_no_authentic_content_is_refused(receiver: Stack, body: bytes, type: str) -> None:
    """P8."""
    answer = post(receiver, body)
    assert answer.status_code == 200
    record = receiver.inbox.get(answer.json()["id"])
    assert record.body == body
    assert record.type == type


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.floats() | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "type", "event", "data", "event_id"]), inner)
    ),
    max_leaves=8,
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_authentic_bytes_are_accepted(receiver: Stack, body: bytes) -> None:
    """P8."""
    assert post(receiver, body).status_code == 200


@pytest.mark.parametrize(
    "name", ["Idempotency-Key", "X-Event-Id", "X-Request-Id", "Webhook-Id", "X-Delivery-Id", "ETag"]
)
def test_no_header_has_a_say_in_which_event_it_is(receiver: Stack, name: str) -> None:
    """P4: only what is signed identifies, or a captured delivery could be sent again as another."""
    body, other = (json.dumps({"header": name, "n": n}).encode() for n in (1, 2))
    answers = [
        httpx.post(
            receiver.url, content=sent, headers={**LOCAL_PROXY, "X-Signature": sign(KEY.encode(), sent), name: id}
        )
        for sent, id in ((body, "1"), (body, "2"), (other, "1"))
    ]
    assert [answer.json()["status"] for answer in answers] == ["accepted", "duplicate", "accepted"]


def test_a_flaw_of_ours_is_a_503(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: asked to send again, the sender does; a 500 without Retry-After might be its last try."""

    def flawed(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.receiver.endpoint.read_payload", flawed)

    async def deliver() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
            return await client.post(PATH, content=b"{}", headers={"X-Signature": sign(KEY.encode(), b"{}")})

    answer = asyncio.run(deliver())
    refused(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert redis.zcard("jobhook:open") == 0


def test_every_refusal_is_documented() -> None:
    responses = openapi(Scheme())["paths"][PATH]["post"]["responses"]
    assert responses.keys() == {"200", *(str(refusal.status) for refusal in REFUSALS)}


def test_the_previous_key_is_accepted_while_rotating(server: EmbeddedServer, tmp_path: Path) -> None:
    with Stack(
        tmp_path, server.url, JOBSITEON_API_KEY="the-new-key-9876543210", JOBSITEON_PREVIOUS_API_KEYS=KEY
    ) as stack:
        stack.redis.flushall()
        stack.start_receiver()
        old = stack.deliver(b'{"signed":"with the previous key"}')
        body = b'{"signed":"with the current key"}'
        new = httpx.post(stack.url, content=body, headers={"X-Signature": sign(b"the-new-key-9876543210", body)})
        assert [stack.inbox.get(a.json()["id"]).meta["key"] for a in (old, new)] == ["previous", "current"]
        revoked = httpx.post(stack.url, content=body, headers={"X-Signature": sign(b"a-key-that-was-revoked", body)})
        assert revoked.status_code == 401
