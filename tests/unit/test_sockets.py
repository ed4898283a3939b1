"""Where the receiver listens: one way to bind for every host, and sockets that are handed in."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from app.cli import sockets
from app.cli.sockets import bind, close, passed_sockets
from app.errors import ConfigError

EVERYWHERE = "0.0.0.0"  # noqa: S104 - that is what is tested
NO_HOSTS = ("no.such.host.invalid", "a b", "http://127.0.0.1", "127.0.0.1:8000", "x" * 300, "ä..b")


@pytest.fixture
def bound() -> Iterator[list[socket.socket]]:
    """What the test has bound; it is let go of at the end."""
    kept: list[socket.socket] = []
    yield kept
    close(kept)


def listen(bound: list[socket.socket], host: str, port: int = 0) -> int:
    """Binds and listens; the port."""
    bound += bind(host, port)
    for one in bound:
        one.listen()
    ports = {one.getsockname()[1] for one in bound}
    assert len(ports) == 1
    return int(ports.pop())


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        (EVERYWHERE, {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("[::1]", {"::1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("[::]", {"127.0.0.1", "::1"}),
    ],
)
def test_listens_on_what_the_host_means(bound: list[socket.socket], host: str, reached_at: set[str]) -> None:
    port = listen(bound, host)
    assert {address for address in ("127.0.0.1", "::1") if accepts(address, port)} == reached_at


def test_a_name_means_all_its_addresses(bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """On one port, also if any will do."""
    resolve = socket.getaddrinfo

    def both(host: str, *rest: int, **more: int) -> list[tuple[object, ...]]:
        return [found for address in ("127.0.0.1", "::1") for found in resolve(address, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    port = listen(bound, "a.name.of.this.machine")
    assert accepts("127.0.0.1", port)
    assert accepts("::1", port)


def test_a_name_with_only_an_ipv6_address_will_do(bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("::1", *rest, **more))
    assert accepts("::1", listen(bound, "a.name.of.this.machine"))


def test_an_address_that_this_machine_does_not_have_is_left_out(
    bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `localhost` in a container without IPv6; that is said."""
    resolve = socket.getaddrinfo

    def two(host: str, *rest: int, **more: int) -> list[tuple[object, ...]]:
        return [found for address in ("2001:db8::1", "127.0.0.1") for found in resolve(address, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    assert accepts("127.0.0.1", listen(bound, "localhost"))
    assert "fewer addresses" in capsys.readouterr().out


@pytest.mark.parametrize("host", ["2001:db8::1", "192.0.2.1"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=r"^JOBHOOK_HOST: cannot listen on .*: Cannot assign requested address"):
        bind(host, 0)


def test_without_ipv6_it_says_what_to_write_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_ipv6(family: int, kind: int) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr("app.cli.sockets.socket.socket", without_ipv6)
    with pytest.raises(ConfigError, match=r"Address family not supported .* 0\.0\.0\.0 is all of them"):
        bind("::", 0)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused_in_a_line(host: str) -> None:
    """P10."""
    with pytest.raises(ConfigError, match=r"^JOBHOOK_HOST: .* is no address of this machine") as refused:
        bind(host, 0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("first", "second"), [("127.0.0.1", "127.0.0.1"), (EVERYWHERE, "::"), ("::", EVERYWHERE)])
def test_a_port_that_is_taken_is_refused(bound: list[socket.socket], first: str, second: str) -> None:
    port = listen(bound, first)
    with pytest.raises(ConfigError, match=rf"^JOBHOOK_PORT: cannot listen on {second}:{port}: Address already in use"):
        bind(second, port)


def test_a_port_can_be_had_again_at_once(bound: list[socket.socket]) -> None:
    """Though connections to it are still being taken leave of."""
    port = listen(bound, "127.0.0.1")
    with closing(socket.create_connection(("127.0.0.1", port))):
        accepted, _ = bound[0].accept()
        accepted.close()
        close(bound)
    bound.clear()
    assert listen(bound, "127.0.0.1", port) == port


def test_without_a_service_manager_nothing_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert passed_sockets() == []


def test_what_is_for_another_process_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a shell stands between, which may keep its sockets; that is said."""
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    assert passed_sockets() == []
    assert "for process 1, not this one" in capsys.readouterr().out
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize("number", ["x", "-1", "1.5"])
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("LISTEN_FDS", number)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    with pytest.raises(ConfigError, match=r"^LISTEN_FDS: "):
        passed_sockets()


def test_what_does_not_listen_is_refused(monkeypatch: pytest.MonkeyPatch, bound: list[socket.socket]) -> None:
    for one, complaint in (
        (socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "does not listen"),
        (socket.socket(), "does not listen"),
    ):
        bound.append(one)
        monkeypatch.setattr(sockets, "FIRST_PASSED", os.dup(one.fileno()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with pytest.raises(ConfigError, match=complaint):
            passed_sockets()


def test_a_file_that_is_no_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    try:
        monkeypatch.setattr(sockets, "FIRST_PASSED", reading)
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with pytest.raises(ConfigError, match="is no socket that can be used"):
            passed_sockets()
    finally:
        os.close(reading)
        os.close(writing)
