"""How a connection ends: with the answer to what is on its way, and without cutting the client off."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from app.receiver.http import MAX_DROPPED_BYTES, WebhookProtocol, _Transport
from tests.support import PATIENCE_SECONDS, wait_until
from tests.support.raw import Connection, request

PIECE = b"x" * 100_000
PIECES = 30
LARGE = PIECES * len(PIECE)
"""Bytes."""


async def refuse_at_once(_: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading the body."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def answer(_: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, and answers."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def serving(app: object) -> Iterator[tuple[uvicorn.Server, int]]:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=WebhookProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=int(PATIENCE_SECONDS),
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        wait_until(lambda: server.started, "the server")
        try:
            yield server, port
        finally:
            server.should_exit = True
            thread.join()


def stop(server: uvicorn.Server, port: int) -> None:
    """Tells a server to stop, and waits until it accepts no more connections."""
    server.should_exit = True
    wait_until(lambda: refuses(port), "the server to stop")


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True
    return False


def test_who_is_refused_while_sending_gets_to_see_the_answer() -> None:
    """P8: a reset would be taken for trouble with the network (RFC 9112, 9.6)."""
    with serving(refuse_at_once) as (_, port), Connection(port) as connection:
        connection.send(request(length=f"Content-Length: {LARGE}", body=b""))
        assert connection.answer().status == 413
        for _ in range(PIECES):  # as a client does that listens only when it has sent everything
            connection.send(PIECE)
        assert connection.rest() == b""


def test_who_sends_what_is_malformed_gets_to_see_the_answer() -> None:
    """P8."""
    with serving(answer) as (_, port), Connection(port) as connection:
        connection.send(request(length="Content-Length: -1", body=b""))
        assert connection.answer().status == 400
        for _ in range(PIECES):
            connection.send(PIECE)
        assert connection.rest() == b""


def test_who_goes_on_sending_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3."""
    monkeypatch.setattr("app.receiver.http.LINGER_SECONDS", 2 * PATIENCE_SECONDS)
    with serving(refuse_at_once) as (_, port), Connection(port) as connection:
        connection.send(request(length=f"Content-Length: {10**12}", body=b""))
        assert connection.answer().status == 413
        with pytest.raises(ConnectionError):
            connection.send(b"x" * 20 * MAX_DROPPED_BYTES)


def test_who_stays_silent_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3."""
    monkeypatch.setattr("app.receiver.http.LINGER_SECONDS", 0.01)
    with serving(refuse_at_once) as (server, port), Connection(port) as connection:
        connection.send(request(length=f"Content-Length: {10**12}", body=b""))
        assert connection.answer().status == 413
        wait_until(lambda: not server.server_state.connections, "the connection to be closed")


@pytest.mark.parametrize("earlier", [0, 1], ids=["a new connection", "a kept connection"])
def test_a_request_that_is_on_its_way_when_the_receiver_stops_is_answered(
    earlier: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: its connection is the last thing that was accepted, and it is closed with the answer."""
    monkeypatch.setattr("app.receiver.http.FIRST_REQUEST_SECONDS", PATIENCE_SECONDS / 2)
    monkeypatch.setattr("app.receiver.http.NEXT_REQUEST_SECONDS", PATIENCE_SECONDS / 2)
    with serving(answer) as (server, port), Connection(port) as connection:
        for _ in range(earlier):
            connection.send(request())
            assert "connection" not in connection.answer().headers
        wait_until(lambda: server.server_state.connections, "the connection to be accepted")
        stop(server, port)
        connection.send(request())
        last = connection.answer()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert connection.rest() == b""


@pytest.mark.parametrize("before", [b"", request(), request()[:40]], ids=["new", "kept", "with half a head"])
def test_an_idle_connection_does_not_hold_up_the_end(before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.receiver.http.FIRST_REQUEST_SECONDS", 0.01)
    monkeypatch.setattr("app.receiver.http.NEXT_REQUEST_SECONDS", 0.01)
    with serving(answer) as (server, port), Connection(port) as connection:
        connection.send(before)
        wait_until(lambda: server.server_state.connections, "the connection to be accepted")
        stop(server, port)
        assert connection.rest().count(b"HTTP/1.1 200") == (before == request())


def test_what_is_written_behind_the_end_goes_nowhere() -> None:
    """P6: the answer to a request that was still worked on when the connection was ended is no error of ours."""

    async def session() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        with theirs:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            out = _Transport(transport, loop)
            out.write(b"answer")
            out.close()
            out.write(b"another")
            out.close()
            return await loop.sock_recv(theirs, 100) + await loop.sock_recv(theirs, 100)

    assert uvloop.run(session()) == b"answer"
