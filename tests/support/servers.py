"""Applications, and plain bytes, served on a loopback port from a thread."""

import logging
import socket
import socketserver
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread

import uvicorn
from starlette.types import ASGIApp

from tests.support import wait_until

HOST = "127.0.0.1"


@dataclass
class Served:
    """Where it is."""

    url: str
    port: int


@contextmanager
def serve(app: ASGIApp) -> Iterator[Served]:
    """Serves an application by HTTP until the end of the block."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # answers that are broken on purpose
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=1, http="h11", ws="none"
    )
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, "the server")
        port = listener.getsockname()[1]
        try:
            yield Served(f"http://{HOST}:{port}", port)
        finally:
            server.should_exit = True
            thread.join()


class _BytesServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    answer: bytes = b""
    piece = 0
    pause = 0.0
    reset = False


class _Handler(socketserver.BaseRequestHandler):
    server: _BytesServer

    def handle(self) -> None:
        received = b""
        while b"\r\n\r\n" not in received and (piece := self.request.recv(65536)):
            received += piece
        answer, size = self.server.answer, self.server.piece or len(self.server.answer) or 1
        with suppress(OSError):  # the client has had enough
            for begin in range(0, len(answer), size):
                self.request.sendall(answer[begin : begin + size])
                time.sleep(self.server.pause)
            if self.server.reset:
                self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass
class Bytes:
    """A server that answers whatever it is told to, HTTP or not, and hangs up."""

    _server: _BytesServer

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    def answer(self, raw: bytes, *, piece: int = 0, pause: float = 0.0, reset: bool = False) -> None:
        """What to answer; in pieces of so many bytes, with a pause after each; with a reset at the end."""
        self._server.answer, self._server.piece, self._server.pause, self._server.reset = raw, piece, pause, reset


@contextmanager
def bytes_server() -> Iterator[Bytes]:
    """Serves bytes until the end of the block."""
    with _BytesServer((HOST, 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Bytes(server)
        finally:
            server.shutdown()
            thread.join()


class _EndlessServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    sent = 0
    most = 0


class _Endless(socketserver.BaseRequestHandler):
    server: _EndlessServer

    def handle(self) -> None:
        received = b""
        while b"\r\n\r\n" not in received and (piece := self.request.recv(65536)):
            received += piece
        with suppress(OSError):  # the client has hung up: that is what it should do
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            while self.server.sent < self.server.most:
                self.request.sendall(_PIECE)
                self.server.sent += len(_PIECE)


_PIECE = b" " * 65536


@dataclass
class EndlessAnswer:
    """A server whose one answer does not end until it has sent `most` bytes."""

    _server: _EndlessServer

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}"

    @property
    def sent(self) -> int:
        """Bytes that the client has let it send so far."""
        return self._server.sent


@contextmanager
def endless_server(most: int) -> Iterator[EndlessAnswer]:
    """Serves an answer that takes nearly for ever, until the end of the block."""
    with _EndlessServer((HOST, 0), _Endless) as server:
        server.most = most
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield EndlessAnswer(server)
        finally:
            server.shutdown()
            thread.join()
