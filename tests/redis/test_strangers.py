"""P3: what is refused costs no work of Redis and bounded memory. What it costs in time, `tests.strangers` measures."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import PATIENCE_SECONDS, wait_until
from tests.support.stack import KEY, Stack

LIMIT = 64 * 1024
IN_KERNEL_BYTES = 16 * 1024**2
"""What may be on its way between two sockets of one machine, over what the receiver has taken in."""
HELD = 300
MOST_KIB_HELD = 40
"""Of memory per connection that waits: Python's objects for it, and what the allocator rounds up."""
NOT_FOR_A_DELIVERY = {f"cmdstat_{name}" for name in ("info", "config|get", "mget", "script|load")}

BODY = b'{"type":"job.created"}'
FORGED = sign(b"not the key, alas", BODY)


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # What is kept of rejected deliveries, off their way and within bounds, has tests of its own.
    environment = {
        "JOBHOOK_REQUIRE_HTTPS": "true",
        "JOBHOOK_MAX_BODY_BYTES": str(LIMIT),
        "JOBHOOK_REJECTED_BYTES": "0",
    }
    with Stack(tmp_path_factory.mktemp("strangers"), server.url, **environment) as stack:
        stack.start_receiver()
        yield stack


def request(*lines: str, body: bytes = BODY, method: str = "POST", https: bool = True) -> bytes:
    forwarded = ("X-Forwarded-Proto: https",) if https else ()
    first = (f"{method} {PATH} HTTP/1.1", "Host: test", *forwarded)
    return "\r\n".join([*first, *lines, "", ""]).encode() + body


LENGTH = f"Content-Length: {len(BODY)}"
GOOD = request(f"X-Signature: {sign(KEY.encode(), BODY)}", LENGTH)
REFUSED = {
    "wrong signature": (request(f"X-Signature: {FORGED}", LENGTH), 401),
    "no signature": (request(LENGTH), 401),
    "plain HTTP": (request(f"X-Signature: {sign(KEY.encode(), BODY)}", LENGTH, https=False), 403),
    "another method": (request(LENGTH, method="PUT"), 405),
    "said to be too large": (request(f"X-Signature: {FORGED}", f"Content-Length: {LIMIT + 1}"), 413),
    "encoded": (request(f"X-Signature: {FORGED}", LENGTH, "Content-Encoding: gzip"), 415),
    "not HTTP": (b"\x16\x03\x01\r\n\r\n", 400),
}


def connect(receiver: Stack) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=PATIENCE_SECONDS)


def answer(receiver: Stack, sent: bytes) -> int:
    with closing(connect(receiver)) as connection:
        connection.sendall(sent)
        return int(connection.recv(65536)[9:12])


def commands(receiver: Stack) -> int:
    """How many commands Redis has run, without those that count them, and that look after idle connections."""
    stats = receiver.redis.info("commandstats")
    return sum(int(entry["calls"]) for name, entry in stats.items() if name not in NOT_FOR_A_DELIVERY)


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_asks_nothing_of_redis(receiver: Stack, sent: bytes, status: int) -> None:
    before = commands(receiver)
    assert answer(receiver, sent) == status
    assert commands(receiver) == before
    assert answer(receiver, GOOD) == 200  # and what is accepted is seen here
    assert commands(receiver) > before


@pytest.mark.parametrize("length", [None, LIMIT, 10**12], ids=["chunked", "within the limit", "far over it"])
def test_a_body_is_not_read_beyond_the_limit(receiver: Stack, length: int | None) -> None:
    """Whatever it says of its length."""
    said = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    piece = b"2000\r\n" + b"x" * 0x2000 + b"\r\n" if length is None else b"x" * 0x2000
    with closing(connect(receiver)) as connection:
        connection.sendall(request(f"X-Signature: {FORGED}", said, body=b""))
        sent = 0
        try:
            while sent < 4 * IN_KERNEL_BYTES:
                sent += connection.send(piece)
        except ConnectionError:
            pass
        assert sent <= LIMIT + IN_KERNEL_BYTES


def test_a_connection_that_waits_holds_little_memory(receiver: Stack) -> None:
    """With half a body, which is let go of when its time is up."""
    half = request(f"X-Signature: {FORGED}", "Content-Length: 4000", body=b"x" * 2000)
    before = rss_kib(receiver)
    held = [connect(receiver) for _ in range(HELD)]
    try:
        for connection in held:
            connection.sendall(half)
        assert answer(receiver, GOOD) == 200  # by now all of them have been taken in
        assert rss_kib(receiver) - before < HELD * MOST_KIB_HELD
        for connection in held:
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
        wait_until(lambda: not_open(receiver), "their end")
    finally:
        for connection in held:
            connection.close()


def not_open(receiver: Stack) -> bool:
    """Whether the receiver has closed what was held open against it."""
    sockets = list(Path(f"/proc/{receiver.processes[0].pid}/fd").iterdir())
    return len(sockets) < HELD


def rss_kib(receiver: Stack) -> int:
    status = Path(f"/proc/{receiver.processes[0].pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
