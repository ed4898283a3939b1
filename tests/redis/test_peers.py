"""Whom the receiver takes for a proxy, on real connections: nobody whose address it does not know (P3)."""

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import wait_until
from tests.support.raw import BODY, request
from tests.support.stack import KEY, ROOT, Stack

STRANGERS = 300
RESET_AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing sends a reset."""
FORGED = ("X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https")


@pytest.fixture
def receiver(server: EmbeddedServer, tmp_path: Path) -> Iterator[Stack]:
    """It trusts no address at all."""
    environment = {
        "JOBHOOK_REQUIRE_HTTPS": "true",
        "JOBHOOK_ALLOWED_IPS": "198.51.100.0/24",
        "JOBHOOK_TRUSTED_PROXIES": "192.0.2.1",
    }
    with Stack(tmp_path, server.url, **environment) as stack:
        stack.redis.flushall()
        stack.start_receiver()
        yield stack


def test_who_resets_the_connection_is_nobody(receiver: Stack) -> None:
    """P3: the receiver looks at the peer's address when the connection has gone already, and finds none."""
    for _ in range(STRANGERS):
        with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
            connection.sendall(request(*FORGED))
    assert receiver.deliver(BODY).status_code == 403  # whoever came before has been looked at by now
    assert receiver.redis.zcard("jobhook:open") == 0
    assert not receiver.log_lines("delivery")


def test_a_proxy_on_a_unix_socket_is_believed(receiver: Stack, tmp_path: Path) -> None:
    """Served by uvicorn alone as well, which knows nothing of the receiver's own protocol."""
    path = tmp_path / "jobhook.sock"
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--uds", str(path)]
    process = subprocess.Popen(command, cwd=ROOT, env=receiver.environment)
    try:
        wait_until(path.exists, "the socket")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://test") as client:
            signed = {"X-Signature": sign(KEY.encode(), BODY)}
            forwarded = dict(line.split(": ") for line in FORGED)
            wait_until(lambda: client.get("/healthz").is_success, "the receiver")
            assert client.post(PATH, content=BODY, headers=signed | forwarded).status_code == 200
            assert client.post(PATH, content=BODY, headers=signed).status_code == 403
    finally:
        process.terminate()
        process.wait()
