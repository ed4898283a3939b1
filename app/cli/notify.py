"""Tells systemd when the receiver is ready, for units of `Type=notify`."""

import os

from app.ops import systemd


async def tell_ready() -> None:
    """Says that deliveries are answered from now on. uvicorn calls this again and again; the first call counts."""
    systemd.notify("READY=1")
    os.environ.pop("NOTIFY_SOCKET", None)
