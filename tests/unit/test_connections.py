"""How a client finds Redis, by units; tests/system/test_failover.py has the real sentinels."""

from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.connection import SSLConnection

from app.store.connections import connect, connect_async, read_sentinel_url

TLS = (SSLConnection, AsyncSSLConnection)


def test_reads_all_that_a_url_for_sentinel_says() -> None:
    found = read_sentinel_url("redis+sentinel://user:p%40ss@s1:1,s2,[::1]:3/mymaster/7?sentinel_password=o%26k")
    assert found.nodes == (("s1", 1), ("s2", 26379), ("::1", 3))
    assert found.service == "mymaster"
    assert found.server == {"username": "user", "password": "p@ss", "db": 7}
    assert found.asked == {"password": "o&k"}
    assert "ss" not in repr(found)


def test_servers_and_sentinels_have_passwords_of_their_own() -> None:
    assert read_sentinel_url("redis+sentinel://:secret@s1/m").asked == {}
    assert read_sentinel_url("redis+sentinel://s1/m?sentinel_username=u&sentinel_password=p").server == {}


def test_tls_is_for_servers_and_sentinels() -> None:
    found = read_sentinel_url("rediss+sentinel://s1/m?ssl_ca_certs=/ca.pem&ssl_check_hostname=false")
    assert found.server == found.asked == {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}


@pytest.mark.parametrize("sentinels", [1, 3, 5])
def test_dead_sentinels_leave_time_for_the_last_and_for_the_primary(sentinels: int) -> None:
    """P6."""
    nodes = ",".join(f"s{n}" for n in range(sentinels))
    found = read_sentinel_url(f"redis+sentinel://{nodes}/m")
    assert found.share(1.0) * sentinels < 1.0


@pytest.mark.parametrize(
    "url", ["redis+sentinel://u:p@s1,s2/m/3?sentinel_password=o", "rediss+sentinel://u:p@s1,s2/m/3"]
)
def test_clients_are_made_with_what_the_url_says(url: str) -> None:
    clients: list[Any] = [connect(url, timeout=3, retries=0), connect_async(url, timeout=3, connect_timeout=3)]
    for client in clients:
        pool = client.connection_pool
        made = pool.make_connection()
        assert (made.username, made.password, made.db, made.socket_timeout) == ("u", "p", 3, 3)
        for sentinel in pool.sentinel_manager.sentinels:
            asking = sentinel.connection_pool.make_connection()
            assert asking.password == ("o" if "=o" in url else None)
            assert asking.socket_timeout == asking.socket_connect_timeout == 1.0
            assert isinstance(asking, TLS) == url.startswith("rediss")
        assert isinstance(made, TLS) == url.startswith("rediss")
