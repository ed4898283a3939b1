"""Commands are packed as redis-py packs them, and numbers never by hiredis."""

from typing import Any

import hiredis
import pytest
from redis.connection import HiredisRespSerializer
from redis.exceptions import DataError

from app.store.connections import connect
from app.store.packing import Packer, pack

COMMANDS: list[tuple[Any, ...]] = [
    ("EVALSHA", "sha", 0, 1, -1, 2**80, 1.5, 1e300, float("inf"), b"\0", "é", ""),
    ("CONFIG GET", "x", memoryview(b"y"), bytearray(b"z")),
    (b"SET", b"k", b"v" * 100_000),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_is_packed_is_the_same(command: tuple[Any, ...]) -> None:
    assert Packer().pack(*command) == HiredisRespSerializer().pack(*command)


def test_what_cannot_be_packed_is_the_same_error() -> None:
    for command in (("SET", "k", None), ("SET", "k", object())):
        with pytest.raises(DataError):
            Packer().pack(*command)


def test_hiredis_gets_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: a signal's handler that raises while hiredis writes a number takes the process along (SIGSEGV)."""
    packed: list[Any] = []

    def note(command: tuple[Any, ...]) -> bytes:
        packed.extend(command)
        return b""

    monkeypatch.setattr(hiredis, "pack_command", note)
    pack(COMMANDS[0])
    Packer().pack(*COMMANDS[0])
    for url in ("redis://127.0.0.1/3", "redis+sentinel://127.0.0.1/primary/3", "unix:///tmp/none.sock"):
        connection = connect(url, timeout=1.0).connection_pool.make_connection()
        connection.pack_command("SELECT", 3)  # type: ignore[no-untyped-call]
    assert len(packed) > len(COMMANDS[0])
    assert {type(argument) for argument in packed} <= {bytes, str}
