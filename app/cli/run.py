"""`jobhook serve` and `jobhook work`: the two processes of a deployment."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
import uvicorn

from app.config.settings import MULTIPROCESS_DIR
from app.config.sources import load_settings, notes, override
from app.errors import ConfigError
from app.inbox.inbox import connect
from app.ops import logs
from app.ops.health import refuse_to_start
from app.receiver.http import WebhookProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that they close idle connections, not the receiver."""
SHUTDOWN_SECONDS = 10


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="JOBHOOK_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="JOBHOOK_PORT")] = None,
    processes: Annotated[int | None, typer.Option(help="Receiver processes.", show_default="JOBHOOK_PROCESSES")] = None,
) -> None:
    """Receive webhooks."""
    settings = load_settings()
    logs.configure(settings)
    logs.warn(notes())
    redis = connect(settings)
    refuse_to_start(settings, redis)
    redis.close()
    host, port = host or settings.host, settings.port if port is None else port
    refuse_used_port(host, port)
    # uvicorn ends itself with the signal it was stopped by; a service manager wants to see a 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    processes = processes or settings.processes
    with _shared_metrics(processes):
        uvicorn.run(
            "app.main:create_app",
            factory=True,
            http=WebhookProtocol,
            host=host,
            port=port,
            workers=processes,
            log_config=None,
            access_log=False,  # there is a line of ours for each delivery
            proxy_headers=False,  # app/receiver/guards.py decides whom to believe
            server_header=False,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )


@contextmanager
def _shared_metrics(processes: int) -> Iterator[None]:
    """Several processes add up their metrics in files."""
    if processes == 1:
        yield
        return
    with TemporaryDirectory(prefix="jobhook-metrics-") as folder:
        os.environ[MULTIPROCESS_DIR] = folder
        yield


def work(
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="JOBHOOK_WORKERS")] = None,
) -> None:
    """Process events: a supervisor and its RQ workers."""
    if workers is not None:
        override("JOBHOOK_WORKERS", str(workers))
    load_settings()  # before RQ is imported: what it cannot use it says with a traceback
    os.execv(sys.executable, [sys.executable, "-m", "workers"])  # noqa: S606 - our own module


def refuse_used_port(host: str, port: int) -> None:
    """Tells in one line that a port cannot be had, before anything else is started.

    Raises:
        ConfigError: it cannot.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or "cannot be used"
            raise ConfigError(f"JOBHOOK_PORT: cannot listen on {host}:{port}: {reason}. Try --port.") from None
