"""What of a request comes before and after its body, on real connections: bounded in time and bytes (P3)."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from app.receiver.http import MAX_HEAD_BYTES, MAX_PIPELINED
from tests.support import PATIENCE_SECONDS
from tests.support.stack import KEY, Stack

ONE_READ_BYTES = 256 * 1024
"""The most that uvicorn's event loop takes from a socket at once."""
IN_KERNEL_BYTES = 16 * 1024**2
"""What may be on its way between two sockets of one machine."""
BODY = b'{"protocol":1}'


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("heads"), server.url) as stack:
        stack.start_receiver()
        yield stack


def connect(receiver: Stack) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=PATIENCE_SECONDS)


def head(*lines: str, body: bytes = BODY) -> bytes:
    first = (f"POST {PATH} HTTP/1.1", "Host: test", f"X-Signature: {sign(KEY.encode(), body)}")
    return "\r\n".join([*first, *lines, "", ""]).encode()


def statuses(connection: socket.socket, number: int) -> list[int]:
    received = b""
    while len(found := re.findall(rb"HTTP/1\.1 (\d{3})", received)) < number:
        data = connection.recv(65536)
        assert data, received
        received += data
    return [int(status) for status in found]


def test_a_head_that_never_ends_is_given_up(receiver: Stack) -> None:
    """A first one, a second one, and a line sent after an answer; all at the same time, to wait but once."""
    whole = head(f"Content-Length: {len(BODY)}") + BODY
    with closing(connect(receiver)) as first, closing(connect(receiver)) as second, closing(connect(receiver)) as third:
        first.sendall(head()[:-2])
        second.sendall(whole + head()[:-2])
        assert statuses(second, 1) == [200]
        third.sendall(b"POST /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n")
        assert statuses(third, 1) == [405]
        third.sendall(b"x")
        for connection in (first, second, third):
            while connection.recv(65536):
                pass


def test_a_head_in_two_pieces_is_no_trouble(receiver: Stack) -> None:
    whole = head(f"Content-Length: {len(BODY)}") + BODY
    with closing(connect(receiver)) as connection:
        for cut in (1, 40, len(whole) - 20, len(whole) - 1):
            connection.sendall(whole[:cut])
            connection.sendall(whole[cut:])
            assert statuses(connection, 1) == [200]


@pytest.mark.parametrize("start", [b"X-Long: ", b""], ids=["one header", "many headers"])
def test_a_head_without_bounds_is_cut_off(receiver: Stack, start: bytes) -> None:
    piece = b"a" * 8192 if start else b"A: b\r\n" * 1365
    assert sent_until_closed(receiver, head()[:-2] + start, piece) <= MAX_HEAD_BYTES + ONE_READ_BYTES + IN_KERNEL_BYTES
    assert receiver.deliver(b'{"still":"there"}').status_code == 200


def test_trailers_without_bounds_are_cut_off(receiver: Stack) -> None:
    start = head("Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX-Long: "
    assert sent_until_closed(receiver, start, b"a" * 8192) <= MAX_HEAD_BYTES + ONE_READ_BYTES + IN_KERNEL_BYTES


def sent_until_closed(receiver: Stack, start: bytes, piece: bytes) -> int:
    """The bytes that could be sent before the receiver had enough."""
    with closing(connect(receiver)) as connection:
        connection.sendall(start)
        sent = 0
        try:
            while sent < 4 * IN_KERNEL_BYTES:
                sent += connection.send(piece)
        except ConnectionError:
            return sent
    raise AssertionError("the receiver takes in whatever comes")


def test_requests_pipelined_without_end_are_cut_off(receiver: Stack) -> None:
    """Nobody is told a 400 for them: it would be taken for the answer to the first."""
    whole = head(f"Content-Length: {len(BODY)}") + BODY
    with closing(connect(receiver)) as connection:
        connection.sendall(whole * (MAX_PIPELINED + 1))
        assert statuses(connection, MAX_PIPELINED + 1) == [200] * (MAX_PIPELINED + 1)
    request = b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n"
    with closing(connect(receiver)) as connection:
        try:
            connection.sendall(request * 1000)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            received = b""
    assert b"HTTP/1.1 400" not in received
    assert received.count(b"HTTP/1.1 ") <= MAX_PIPELINED + 1


def test_whole_heads_between_two_cuts_are_not_counted_to_the_next(receiver: Stack) -> None:
    long = b"x" * (MAX_HEAD_BYTES + 1)
    with closing(connect(receiver)) as connection:
        whole = head(f"Content-Length: {len(long)}", body=long)
        connection.sendall(whole[:40])
        connection.sendall(whole[40:] + long + whole[:40])
        assert statuses(connection, 1) == [200]
        connection.sendall(whole[40:] + long)
        assert statuses(connection, 1) == [200]


def test_a_long_body_before_the_next_head_is_not_counted_to_it(receiver: Stack) -> None:
    long = b"x" * 1_000_000
    with closing(connect(receiver)) as connection:
        connection.sendall(head(f"Content-Length: {len(long)}", body=long) + long + head()[:-2])
        assert statuses(connection, 1) == [200]
        connection.sendall(f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY)
        assert statuses(connection, 1) == [200]


def test_trailers_are_not_taken_for_headers(server: EmbeddedServer, tmp_path: Path) -> None:
    """Or a stranger could write behind what the load balancer says of it, where that passes trailers on."""
    with Stack(tmp_path, server.url, JOBHOOK_REQUIRE_HTTPS="true") as stack:
        stack.redis.flushall()
        stack.start_receiver()
        forged = "0\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n"
        chunks = b"%x\r\n%s\r\n" % (len(BODY), BODY) + forged.encode()
        with closing(connect(stack)) as connection:
            connection.sendall(head("Transfer-Encoding: chunked", "X-Forwarded-Proto: http") + chunks)
            assert statuses(connection, 1) == [403]
        with closing(connect(stack)) as connection:
            behind = ("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.9")
            connection.sendall(head("Transfer-Encoding: chunked", *behind) + chunks)
            assert statuses(connection, 1) == [200]
        (line,) = stack.log_lines("delivery", at_least=1)
        assert line["client"] == "203.0.113.9"


def test_headers_that_are_asked_for_again_and_again_are_read_each_time(receiver: Stack) -> None:
    """The headers of one request are not those of the next on its connection."""
    with httpx.Client() as client:
        good = {"X-Signature": sign(KEY.encode(), BODY)}
        answers = [client.post(receiver.url, content=BODY, headers=h) for h in (good, {}, good)]
    assert [answer.status_code for answer in answers] == [200, 401, 200]
