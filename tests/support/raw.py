"""Requests written by hand, and the answers to them, on a connection of one's own."""

import re
import socket
from dataclasses import dataclass
from typing import Any, Self

from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import PATIENCE_SECONDS
from tests.support.stack import KEY

BODY = b'{"type":"raw.request"}'
SIGNATURE = f"X-Signature: {sign(KEY.encode(), BODY)}"
LENGTH = f"Content-Length: {len(BODY)}"


def request(
    *lines: str,
    method: str = "POST",
    target: str = PATH,
    version: str = " HTTP/1.1",
    host: str | None = "Host: test",
    signature: str | None = SIGNATURE,
    length: str | None = LENGTH,
    body: bytes = BODY,
) -> bytes:
    """A good delivery but for what is changed; None leaves a line out. `lines` are further headers."""
    head = [f"{method} {target}{version}", host, signature, length, *lines, "", ""]
    return "\r\n".join(line for line in head if line is not None).encode("latin-1") + body


def chunked(*lines: str, body: bytes, coding: str = "Transfer-Encoding: chunked", **changed: Any) -> bytes:
    """A good delivery in chunks, which are written by hand."""
    return request(coding, *lines, length=None, body=body, **changed)


@dataclass(frozen=True)
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A connection to a receiver on this machine."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer, be it a 100; `bodiless` if it is to a HEAD."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", line)
        assert found, line
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        length = 0 if bodiless else int(headers.get("content-length", 0))
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(found[1]), headers, body)

    def rest(self) -> bytes:
        """What comes until the receiver closes the connection."""
        try:
            while data := self.socket.recv(65536):
                self._received += data
        except ConnectionError:
            pass
        return self._received

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"closed after {self._received!r}"
        self._received += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
