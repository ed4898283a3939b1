"""The pulse of a supervisor, and what systemd is told (P9)."""

import os
import socket
import time
from pathlib import Path

import pytest

from app.ops import pulse, systemd
from app.ops.pulse import ALIVE_WITHIN_SECONDS, Pulse, beats

URL = "redis://user:password-of-the-tests@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pulse, "_folders", lambda: [tmp_path / "missing", tmp_path])
    return tmp_path


def test_it_beats_until_its_end(folder: Path) -> None:
    alive = Pulse(URL)
    (beat,) = beats(URL)
    assert (beat.pid, beat.is_recent) == (os.getpid(), True)
    alive.end()
    assert beats(URL) == []
    assert list(folder.iterdir()) == []


def test_an_old_beat_is_not_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = Pulse(URL)
    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + ALIVE_WITHIN_SECONDS + 1)
    assert [beat.is_recent for beat in beats(URL)] == [False]
    alive.beat()
    assert [beat.is_recent for beat in beats(URL)] == [True]
    monkeypatch.setattr("time.monotonic", lambda: now - 100.0)  # the machine has been started anew since
    assert [beat.is_recent for beat in beats(URL)] == [False]
    alive.end()


def test_each_deployment_looks_after_its_own_whatever_its_password() -> None:
    alive = Pulse(URL)
    assert beats("redis://127.0.0.1:2/0") == []
    assert len(beats(URL.replace("password-of", "another-of"))) == 1
    alive.end()


def test_what_a_killed_one_has_left_is_not_taken_for_alive_and_goes(folder: Path) -> None:
    killed = Pulse(URL)
    os.close(killed._fd)  # as the kernel does
    assert beats(URL) == []
    alive = Pulse(URL)
    assert len(list(folder.iterdir())) == 1
    alive.end()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"1", b"1 2 3", b"\xff\xff x"])
def test_a_file_that_is_none_is_left_out(folder: Path, content: bytes) -> None:
    alive = Pulse(URL)
    os.ftruncate(alive._fd, 0)
    os.pwrite(alive._fd, content, 0)
    assert beats(URL) == []
    alive.end()


def test_without_a_folder_it_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(pulse, "_folders", lambda: [folder / "missing"])
    with pytest.raises(OSError, match=r"none of .*missing can be written"):
        Pulse(URL)


def test_the_first_folder_is_the_services_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/jobhook:/run/other")
    assert [str(folder) for folder in pulse._folders()][:2] == ["/run/jobhook", "/dev/shm"]  # noqa: S108
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert str(pulse._folders()[0]) == "/dev/shm"  # noqa: S108


# --- systemd


@pytest.fixture
def listener(folder: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(folder / "notify"))
    made.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
    return made


def test_a_state_is_sent(listener: socket.socket) -> None:
    with listener:
        systemd.notify("READY=1")
        assert listener.recv(99) == b"READY=1"


def test_an_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # the kernel chooses one
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listener.getsockname()[1:].decode())
        systemd.notify("READY=1")
        listener.setblocking(False)
        assert listener.recv(99) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")


def test_a_full_socket_keeps_nobody_waiting(listener: socket.socket) -> None:
    with listener:
        for _ in range(5000):
            systemd.notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "sent"), [("30000000", "", True), ("30000000", "self", True), ("30000000", "1", False)]
)
def test_the_watchdog_is_fed_by_whom_it_watches(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str, sent: bool
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid) if pid else None
    with listener:
        systemd.watchdog()
        if sent:
            assert listener.recv(99) == b"WATCHDOG=1"
        else:
            with pytest.raises(BlockingIOError):
                listener.recv(99)


def test_nobody_is_told_of_a_watchdog_that_there_is_not(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with listener:
        systemd.watchdog()
        with pytest.raises(BlockingIOError):
            listener.recv(99)
