"""What systemd is told by a service of `Type=notify` (sd_notify(3)). Without systemd, nothing is."""

import os
import socket

import structlog

from app.errors import describe

log = structlog.stdlib.get_logger(__name__)


def notify(state: str) -> None:
    """Sends a state such as `READY=1` or `WATCHDOG=1`. Never waits, and never fails: that it could not is logged."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        log.warning("systemd cannot be told", state=state, **describe(error))


def watchdog() -> None:
    """Says that this process is alive, if systemd waits for that."""
    if os.environ.get("WATCHDOG_USEC") and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        notify("WATCHDOG=1")
