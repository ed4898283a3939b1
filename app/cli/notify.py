"""Tells systemd when the receiver is ready (sd_notify(3)), for units of `Type=notify`."""

import os
import socket

import structlog

from app.errors import describe

log = structlog.stdlib.get_logger(__name__)


async def tell_ready() -> None:
    """Says that deliveries are answered from now on. uvicorn calls this again and again; the first call counts."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.connect("\0" + address[1:] if address.startswith("@") else address)
            manager.send(b"READY=1")
    except OSError as error:
        log.warning("systemd cannot be told that the receiver is ready", **describe(error))
