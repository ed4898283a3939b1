"""`jobhook serve` and `jobhook work`: the two processes of a deployment."""

import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

import app
from app.cli.notify import tell_ready
from app.cli.sockets import sockets
from app.config.names import DEV
from app.config.sources import load_settings, notes, override
from app.inbox.inbox import connect
from app.ops import hangup, logs, metrics
from app.ops.health import refuse_to_start
from app.receiver.http import WebhookProtocol

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that they close idle connections, not the receiver."""
SHUTDOWN_SECONDS = 10
PASS_ON_SECONDS = 1.0
"""How long a receiver process may take to say whether it is ready for a signal."""


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
    hangup.ignore_until_ready()
    listening = sockets(host or settings.host, settings.port if port is None else port)
    # uvicorn ends itself with the signal it was stopped by; a service manager wants to see a 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    processes = processes or settings.processes
    config = uvicorn.Config(
        "app.main:application",
        factory=True,
        http=WebhookProtocol,
        workers=processes,
        log_config=None,
        access_log=False,  # there is a line of ours for each delivery
        proxy_headers=False,  # app/receiver/guards.py decides whom to believe
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        callback_notify=tell_ready,
    )
    with metrics.shared(processes), suppress(KeyboardInterrupt):
        if processes > 1:
            _Processes(config, listening).run()
            return
        server = uvicorn.Server(config)
        server.run(listening)
        if not server.started:
            sys.exit(STARTUP_FAILURE)


class _Processes(Multiprocess):
    """The receiver processes. A SIGHUP is for them, and restarts none; on a terminal it ends them."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._is_of_a_terminal = hangup.is_of_a_terminal()  # by the time of the signal, there is none any more

    def handle_hup(self) -> None:
        """Passes it on. A process that is not ready yet has still to read what the SIGHUP is about."""
        if self._is_of_a_terminal:
            self.should_exit.set()
            return
        for process in self.processes:
            if process.pid and process.is_ready(PASS_ON_SECONDS):
                os.kill(process.pid, signal.SIGHUP)


def work(
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="JOBHOOK_WORKERS")] = None,
) -> None:
    """Process events: a supervisor and its RQ workers."""
    if workers is not None:
        override("JOBHOOK_WORKERS", str(workers))
    load_settings()  # before RQ is imported: what it cannot use it says with a traceback
    os.execv(sys.executable, workers_command())  # noqa: S606 - our own module


def run(
    handler: Annotated[str, typer.Argument(help="The handler's name, or its last part.")],
    file: Annotated[Path | None, typer.Option(help="Run it on an event with this body.")] = None,
    event: Annotated[
        str | None, typer.Option(help="Run it on this event of the inbox: its id, or its first digits.")
    ] = None,
) -> None:
    """Run one handler once, here, and record nothing of it: no attempt, no steps. Its effects are real."""
    if (file is None) == (event is None):
        raise typer.BadParameter("give --file or --event")
    override(DEV, "true")  # those for trying out can be run as well
    load_settings()  # as above
    source = ("--file", str(file)) if file else ("--event", str(event))
    os.execv(sys.executable, workers_command("--run", handler, *source))  # noqa: S606 - our own module


def workers_command(*options: str) -> list[str]:
    """What starts our workers, by their path: the current folder may have a `workers` of its own."""
    return [sys.executable, "-P", str(Path(app.__file__).parents[1] / "workers" / "__main__.py"), *options]
