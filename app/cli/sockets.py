"""Where the receiver listens: on sockets that a service manager hands in, else on ones that are bound here.

A socket that systemd holds outlives the receiver: while one receiver stops and the next one starts, connections wait
in the socket's queue, and none is refused (sd_listen_fds(3), `deploy/jobhook-receiver.socket`).
"""

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any

import structlog

from app.errors import ConfigError

FIRST_PASSED = 3
"""The number of the first socket handed in, after stdin, stdout and stderr (SD_LISTEN_FDS_START)."""
_PASSED_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Of an address that this machine does not have, or whose family it does not speak."""

log = structlog.stdlib.get_logger(__name__)


def sockets(host: str, port: int) -> list[socket.socket]:
    """The sockets to listen on: those handed in, else bound to the host and the port. Says which.

    Raises:
        ConfigError: they cannot be used.
    """
    passed = passed_sockets()
    found = passed or bind(host, port)
    where = [_name(one) for one in found]
    if passed:
        log.info("listening", on=where, socket="handed in: JOBHOOK_HOST and JOBHOOK_PORT are not used")
    else:
        log.info("listening", on=where)
    return found


def passed_sockets() -> list[socket.socket]:
    """The sockets that a service manager has handed in. Child processes are not told of them.

    Raises:
        ConfigError: what was handed in is no socket that connections can be accepted from.
    """
    process, number, _ = (os.environ.pop(name, "") for name in _PASSED_VARIABLES)
    if not number:
        return []
    if process != str(os.getpid()):
        log.warning(
            "sockets ignored", reason=f"LISTEN_PID says that they are for process {process or '?'}, not this one"
        )
        return []
    if not number.isdecimal():
        raise ConfigError(f"LISTEN_FDS: {number!r} is not a number of sockets")
    return [_passed(file) for file in range(FIRST_PASSED, FIRST_PASSED + int(number))]


def _passed(file: int) -> socket.socket:
    try:
        os.set_inheritable(file, False)
        passed = socket.socket(fileno=file)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: file {file} is no socket that can be used: {error.strerror}") from None
    if passed.type != socket.SOCK_STREAM or not listens:
        raise ConfigError(
            f"LISTEN_FDS: file {file} does not listen. Use ListenStream= and Accept=no in the .socket unit."
        )
    return passed


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address that the host has. Without an IPv4 address among them, `::` is IPv4 as well.

    Raises:
        ConfigError: there are none, or one of them is in use.
    """
    addresses = _addresses(host, port)
    families = {family for family, _ in addresses}
    bound: list[socket.socket] = []
    missing: list[OSError] = []
    for family, address in addresses:
        try:
            one = _bind(family, (address[0], port, *address[2:]), only_ipv6=socket.AF_INET in families)
        except OSError as error:
            if error.errno in _NOT_HERE:
                missing.append(error)
                continue
            close(bound)
            raise _unusable(host, port, error) from None
        bound.append(one)
        port = one.getsockname()[1]  # if any port will do, it is to be the same for all
    if not bound:
        raise _unusable(host, port, missing[0])
    if missing:
        log.warning("listening on fewer addresses", host=host, missing=[error.strerror for error in missing])
    return bound


def close(bound: Iterable[socket.socket]) -> None:
    """Lets go of sockets."""
    for one in bound:
        one.close()


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(literal, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        raise ConfigError(f"JOBHOOK_HOST: {host!r} is no address of this machine ({reason}). Try --host.") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bind(family: int, address: tuple[Any, ...], *, only_ipv6: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for what has just ended
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def _unusable(host: str, port: int, error: OSError) -> ConfigError:
    if error.errno in _NOT_HERE:
        reason = (
            f"{error.strerror}. Set JOBHOOK_HOST to an address of this machine; without IPv6, 0.0.0.0 is all of them"
        )
        return ConfigError(f"JOBHOOK_HOST: cannot listen on {host}: {reason}.")
    return ConfigError(
        f"JOBHOOK_PORT: cannot listen on {host}:{port}: {error.strerror or 'cannot be used'}. Try --port."
    )


def _name(one: socket.socket) -> str:
    address = one.getsockname()
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
