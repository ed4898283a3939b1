"""The version of what is stored, so that no process works on records that it would misread.

`jobhook:schema` holds it. Whoever comes first on an empty Redis, or on one from before there were versions,
sets it. Every process reads it when it starts and whenever it has connected anew: the Redis behind an address
may have been replaced, and a newer Jobhook may have changed the records meanwhile.

Within a version, old and new code work on the same records side by side: a field that is new may be missing,
and one that is old keeps its meaning. What cannot be compatible raises the version.
"""

from typing import Final, cast

from redis import Redis

from app.errors import ConfigError

KEY: Final = "jobhook:schema"
VERSION: Final = 1
"""Of the records that this code reads and writes. Those written before there were versions are of version 1 too."""

CLAIM: Final = ("SET", KEY, VERSION, "NX", "GET")
"""The command that reads the version, and sets it where there is none. Its bare reply is what `verify` takes."""


def claim(redis: "Redis") -> None:
    """Sets the version where there is none, else verifies the one there is.

    Raises:
        ConfigError: this code does not know it.
        RedisError: the server cannot be asked.
    """
    verify(cast(bytes | None, redis.set(KEY, VERSION, nx=True, get=True)))


def verify(stored: bytes | None) -> None:
    """Whether this code knows the version stored; None means that there was none.

    Raises:
        ConfigError: it does not. The message says which side to upgrade.
    """
    if stored is None or stored == str(VERSION).encode():
        return
    version = stored.decode("ascii", "replace")
    if version.isdecimal() and int(version) > VERSION:
        remedy = "upgrade this process, or let it use a Redis of its own"
    elif version.isdecimal():
        remedy = "upgrade the records: CHANGELOG.md says how"
    else:
        remedy = f"something else than Jobhook has written {KEY}: let this process use a Redis of its own"
    raise ConfigError(
        f"REDIS_URL: its records are of schema version {version[:20]!r}, this Jobhook knows version {VERSION}: {remedy}"
    )
