"""REDIS_URL: what it says is what the connections do, or it is refused (P10), without a word of it (P7)."""

import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.store.connections import check_url, connect, read_sentinel_url

SERVERS = "db, username, password"
TLS = "ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs, ssl_check_hostname"
UNKNOWN = f"has an option that is not known here; those for redis:// are {SERVERS}"
UNKNOWN_TLS = f"has an option that is not known here; those for rediss:// are {SERVERS}, {TLS}"
ADDRESS = (
    "cannot be read: a password with / or @ in it has to be percent-encoded; "
    "an IPv6 address goes between [ and ], and a port is a number from 1 to 65535"
)
UNREADABLE = "cannot be read: a password with / or @ in it has to be percent-encoded"
SENTINELS = UNREADABLE + "; sentinels are written host:port, separated by commas"
SCHEME = "must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
SOCKET = "must name the socket by its whole path: unix:///run/redis.sock"
WHITE = "has white space in it, or another invisible character"
REQS = "ssl_cert_reqs must be none, optional or required"

REFUSED = {
    "redis://h?socket_timeout=1": UNKNOWN,
    "redis://h?decode_responses=true": UNKNOWN,
    "redis://h?max_connections=5": UNKNOWN,
    "redis://h?nonsense=1": UNKNOWN,
    "redis://h?DB=1": UNKNOWN,
    "redis://h?ssl=true": UNKNOWN + "; for TLS, begin with rediss://",
    "redis://h?ssl_cert_reqs=none": UNKNOWN + "; for TLS, begin with rediss://",
    "rediss://h?ssl=true": UNKNOWN_TLS,
    "rediss://h?ssl_cert_reqs=CERT_NONE": REQS,
    "rediss://h?ssl_cert_reqs=false": REQS,
    "rediss://h?ssl_cert_reqs=": "gives no value to ssl_cert_reqs",
    "rediss://h?ssl_check_hostname=flase": "ssl_check_hostname must be true or false",
    "rediss://h?ssl_keyfile=k.pem": "has ssl_keyfile without ssl_certfile",
    "redis://h/0?db=": "gives no value to db",
    "redis://h/1?db=2": "gives the db twice: before the ? and after it",
    "redis://h?db=1&db=2": "gives db twice",
    "redis://h?db=one": "must have a number as its database, as in ?db=0",
    "redis://h?db=-1": "must have a number as its database, as in ?db=0",
    "redis://u:p@h?password=q": "gives the password twice: before the ? and after it",
    "redis://h?password=a+b": "has a + in password: write %2B for it, or %20 for a blank",
    "redis://h?password": UNREADABLE,
    "redis://h/zero": "must have a number as its database, as in redis://host/0",
    "redis://h/1/2": "must have a number as its database, as in redis://host/0",
    "redis://h/-1": "must have a number as its database, as in redis://host/0",
    "redis://h/1.0": "must have a number as its database, as in redis://host/0",
    "redis://h:0": ADDRESS,
    "redis://h:65536": ADDRESS,
    "redis://h:port": ADDRESS,
    "redis://h:": ADDRESS,
    "redis://h:6379:6379": ADDRESS,
    "redis://h1,h2": ADDRESS,
    "redis://::1": ADDRESS,
    "redis://[::1": ADDRESS,
    "redis://[::zz]": ADDRESS,
    "redis://[10.0.0.1]": ADDRESS,
    "redis://${HOST}": ADDRESS,
    "redis://u:p/w@h": ADDRESS,
    "redis://u:6/w@h/0": UNREADABLE,
    "redis://u:6?w@h/0": UNREADABLE,
    "redis://u:p[w@h": UNREADABLE,
    "redis://u#w@h": "has a # in it: in a password, write %23",
    "redis://h/0#1": "has a # in it: in a password, write %23",
    "redis://": "names no host: write redis://host:6379/0",
    "redis:///0": "names no host: write redis://host:6379/0",
    "redis://:pw@": "names no host: write redis://host:6379/0",
    "redis://:6379/0": ADDRESS,
    "rediss://": "names no host: write rediss://host:6379/0",
    "unix://": SOCKET,
    "unix:///": SOCKET,
    "unix://run/redis.sock": SOCKET,
    "unix:///run/": SOCKET,
    "unix:///s?ssl_cert_reqs=none": (
        f"has an option that is not known here; those for unix:// are {SERVERS}; for TLS, begin with rediss://"
    ),
    " redis://h": SCHEME,
    "redis://h ": WHITE,
    "redis://h/0\n": WHITE,
    "redis://h/\u200b0": WHITE,
    "redis://u:p w@h": WHITE,
    '"redis://h"': SCHEME,
    "h:6379": SCHEME,
    "REDIS://h": SCHEME,
    "redis:/h": SCHEME,
    "redis+sentinel://s:0/m": SENTINELS,
    "redis+sentinel://[::zz]/m": SENTINELS,
    "redis+sentinel://s/m?sentinel_password=a&sentinel_password=b": "gives sentinel_password twice",
    "redis+sentinel://s/m?sentinel_password=a+b": (
        "has a + in sentinel_password: write %2B for it, or %20 for a blank"
    ),
    "rediss+sentinel://s/m?ssl_cert_reqs=CERT_NONE": REQS,
    "rediss+sentinel://s/m?ssl_keyfile=k.pem": "has ssl_keyfile without ssl_certfile",
    "redis+sentinel://s/m ": WHITE,
}


@pytest.mark.parametrize(("url", "problem"), REFUSED.items(), ids=REFUSED)
def test_says_what_is_wrong_with_a_url(url: str, problem: str) -> None:
    """P10."""
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        check_url(url)


HOST, SOCK = {"host": "h"}, {"path": "/run/redis.sock"}
ACCEPTED: dict[str, dict[str, Any]] = {
    "redis://h": HOST,
    "redis://h/": HOST,
    "redis://h/0": HOST | {"db": 0},
    "redis://h/15/": HOST | {"db": 15},
    "redis://h?db=3": HOST | {"db": 3},
    "redis://h/?db=3": HOST | {"db": 3},
    "redis://my_redis-1.internal:6380": {"host": "my_redis-1.internal", "port": 6380},
    "redis://[::1]:6380/1": {"host": "::1", "port": 6380, "db": 1},
    "redis://user@h": HOST | {"username": "user"},
    "redis://:pw@h": HOST | {"password": "pw"},
    "redis://:@h": HOST,
    "redis://us%3Aer:p%2Fw%40%23%3F@h": HOST | {"username": "us:er", "password": "p/w@#?"},
    "redis://u:p@w:x+y$&;=é@h": HOST | {"username": "u", "password": "p@w:x+y$&;=é"},
    "redis://h?username=u&password=p%2Bw": HOST | {"username": "u", "password": "p+w"},
    "rediss://h?ssl_cert_reqs=none": HOST | {"ssl_cert_reqs": "none"},
    "rediss://h?ssl_check_hostname=false": HOST | {"ssl_check_hostname": False},
    "rediss://h?ssl_check_hostname=False": HOST | {"ssl_check_hostname": False},
    "unix:///run/redis.sock": SOCK,
    "unix://u:p@/run/redis.sock?db=1": SOCK | {"username": "u", "password": "p", "db": 1},
}


@pytest.mark.parametrize(("url", "expected"), ACCEPTED.items(), ids=ACCEPTED)
def test_a_url_that_is_accepted_is_what_the_connections_do(url: str, expected: dict[str, Any]) -> None:
    """P10."""
    check_url(url)
    with connect(url, timeout=1) as client:
        made = client.connection_pool.connection_kwargs
        assert {name: made[name] for name in expected} == expected
        assert made["socket_timeout"] == 1
        client.connection_pool.make_connection()


def test_options_of_sentinel_are_what_the_connections_do() -> None:
    found = read_sentinel_url(
        "rediss+sentinel://u:p%40@[::1],s2:1/m/2?sentinel_password=a%2Bb&ssl_cert_reqs=none&ssl_check_hostname=False"
    )
    tls = {"ssl": True, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert found.nodes == (("::1", 26379), ("s2", 1))
    assert found.server == {"username": "u", "password": "p@", "db": 2} | tls
    assert found.asked == {"password": "a+b"} | tls


@given(
    url=st.builds(
        "{}{}".format,
        st.sampled_from(["redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://"]),
        st.text(st.sampled_from('hu1:@/?#&=[].,%+ "db_ssl\u200b'), max_size=25),
    )
)
def test_every_url_is_accepted_or_refused_in_one_line(url: str) -> None:
    """P10: never a traceback, and no client of what is accepted fails to be made."""
    try:
        check_url(url)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either is right
    else:
        connect(url, timeout=1).close()


# Certificates

SCHEMES = ["rediss://h", "rediss+sentinel://s/m"]


@pytest.mark.parametrize("url", SCHEMES)
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_certificate_that_is_missing_is_said_at_the_start(url: str, option: str, tmp_path: Path) -> None:
    """P10: not as a Redis that does not answer."""
    for file in ("nowhere.pem", ""):
        with pytest.raises(ConfigError) as raised:
            connect(f"{url}?{option}={tmp_path}/{file}", timeout=1)
        assert str(raised.value) == f"REDIS_URL: {option} names no file that is there"


@pytest.mark.parametrize("url", SCHEMES)
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(url: str, tmp_path: Path) -> None:
    """P10."""
    (tmp_path / "no.pem").write_text("no certificate")
    ours, others = trustme.CA().issue_cert("client"), trustme.CA().issue_cert("other")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    others.private_key_pem.write_to_path(tmp_path / "other.pem")
    for options, named in {
        "ssl_ca_certs={0}/no.pem": "ssl_ca_certs",
        "ssl_certfile={0}/no.pem": "ssl_certfile",
        "ssl_certfile={0}/cert.pem&ssl_keyfile={0}/other.pem": "ssl_certfile",
    }.items():
        with pytest.raises(ConfigError) as raised:
            connect(f"{url}?{options.format(tmp_path)}", timeout=1)
        assert str(raised.value).startswith(f"REDIS_URL: {named} cannot be used (")
    connect(f"{url}?ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem", timeout=1).close()
