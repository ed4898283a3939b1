"""What systemd is told by a service of `Type=notify` (sd_notify(3)). Without systemd, nothing is."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Sends a state such as `READY=1` or `WATCHDOG=1`. Never waits, and never fails."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def watchdog() -> None:
    """Says that this process is alive, if systemd waits for that."""
    if os.environ.get("WATCHDOG_USEC") and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        notify("WATCHDOG=1")
