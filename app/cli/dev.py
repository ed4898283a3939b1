"""`jobhook dev`: Valkey, receiver and workers in one terminal, with a sample delivery to begin with."""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated

import httpx
import typer

from app.cli.inspect import life
from app.cli.output import console
from app.cli.run import refuse_used_port
from app.cli.send import deliver
from app.config import configured_names, load_settings
from app.embedded import DURABLE, EmbeddedServer
from app.errors import ConfigError
from app.inbox import Inbox, Record, connect
from app.receiver import PATH
from app.samples import sample

START_SECONDS = 30.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_WATCH_MS = 500


def dev(
    port: Annotated[int | None, typer.Option(help="Port of the receiver.", show_default="JOBHOOK_PORT")] = None,
    data: Annotated[Path, typer.Option(help="Where the local server keeps its data.")] = Path(".data"),
    reload: Annotated[bool, typer.Option(help="Restart when a Python file changes.")] = True,
) -> None:
    """Run everything here, for trying out and for writing handlers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped either way, in good order
    with _folder(data) as lock, _redis(data, lock):
        settings = load_settings() if port is None else load_settings(port=port)
        os.environ["JOBHOOK_PORT"] = str(settings.port)
        refuse_used_port(settings.host, settings.port)
        url = f"http://{settings.host}:{settings.port}"
        _remember(data)
        with _Processes() as processes:
            _wait_until_ready(url, processes)
            console.print(f"\n[bold]Jobhook[/] receives at [bold]{url}{PATH}[/]. A sample delivery:\n")
            _deliver_sample(url + PATH)
            command = Path(sys.argv[0])
            shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
            console.print(
                f"\nSend another:  [bold]{shown} send job.created[/]\n"
                f"Look at all:   [bold]{shown} events[/]\n"
                "Edit first:    [bold]workers/handlers/example.py[/] (the workers restart by themselves)\n"
                "Stop:          Ctrl-C\n"
            )
            try:
                _watch(processes, reload=reload)
            except KeyboardInterrupt:
                console.print("\nStopping: workers finish what they have in hand.")
    local_env_file(Path.cwd()).unlink(missing_ok=True)


def local_env_file(folder: Path) -> Path:
    """The settings of the `jobhook dev` that runs in a folder, for the other commands."""
    return folder / ".data" / "dev.env"


@contextmanager
def _folder(data: Path) -> Iterator[int]:
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"{data} cannot be written ({error.strerror}). Choose another folder with --data.") from None
    with lock:
        try:
            # The server inherits it, so that it lasts as long as anybody uses the data.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"`jobhook dev` is already running on {data}. Stop it, or choose --data.") from None
        yield lock.fileno()


@contextmanager
def _redis(data: Path, lock: int) -> Iterator[None]:
    """What is not configured gets a local value: a key, a Valkey server, plain HTTP."""
    names = configured_names()
    if "JOBSITEON_API_KEY" not in names:
        os.environ["JOBSITEON_API_KEY"] = _local_key(data / "api-key")
    if "JOBHOOK_REQUIRE_HTTPS" not in names:
        os.environ["JOBHOOK_REQUIRE_HTTPS"] = "false"
    load_settings()  # what is wrong is told before anything is started
    if "REDIS_URL" in names:
        yield
        return
    with EmbeddedServer(data / "valkey", *DURABLE, inherit=(lock,)) as server:
        os.environ["REDIS_URL"] = server.url
        yield


def _local_key(file: Path) -> str:
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(24))
    return file.read_text()


def _remember(data: Path) -> None:
    names = ("JOBSITEON_API_KEY", "REDIS_URL", "JOBHOOK_REQUIRE_HTTPS", "JOBHOOK_PORT")
    file = data / "dev.env"
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={os.environ[name]}\n" for name in names if name in os.environ))


class _Processes:
    """The receiver and the workers, as child processes that a Ctrl-C does not reach by itself."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "_Processes":
        for module in (("app", "serve"), ("workers",)):
            command = [sys.executable, "-m", *module]
            self._running.append(subprocess.Popen(command, start_new_session=True))  # noqa: S603 - our own modules
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.terminate()
        deadline = monotonic() + STOP_SECONDS
        for process in self._running:
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def restart(self) -> None:
        """Stops both in good order and starts them with the code as it is now."""
        self.__exit__()
        self.__enter__()

    def check(self) -> None:
        """Raises ConfigError if one of them has ended: it has said why."""
        if any(process.poll() is not None for process in self._running):
            raise ConfigError("A process ended: see above.")


def _wait_until_ready(url: str, processes: _Processes) -> None:
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline:
        processes.check()
        try:
            if httpx.get(f"{url}/readyz").json() == {"status": "ready", "problems": []}:
                return
        except (httpx.HTTPError, ValueError):
            pass
        sleep(_POLL_SECONDS)
    raise ConfigError(f"{url}/readyz does not get ready: see `jobhook doctor`.")


def _deliver_sample(url: str) -> None:
    settings = load_settings()
    answer, ms = deliver(url, sample(), settings)
    if not answer.is_success:
        raise ConfigError(f"The sample delivery got {answer.status_code}: {answer.text}")
    console.print(f"  POST {url}  [green]{answer.status_code}[/] in {ms} ms\n")
    record = _wait_until_done(Inbox(connect(settings), settings), answer.json()["id"])
    for line in life(record):
        console.print("  " + line, soft_wrap=True)


def _wait_until_done(inbox: Inbox, id: str) -> Record:
    deadline = monotonic() + START_SECONDS
    while (record := inbox.get(id)).state != "done" and monotonic() < deadline:
        sleep(_POLL_SECONDS)
    return record


def _watch(processes: _Processes, *, reload: bool) -> None:
    if not reload:
        threading.Event().wait()
    from watchfiles import PythonFilter, watch  # noqa: PLC0415 - in the dev extra only

    folders = [folder for folder in ("app", "workers") if Path(folder).is_dir()] or ["."]
    for changes in watch(*folders, watch_filter=PythonFilter(), rust_timeout=_WATCH_MS, yield_on_timeout=True):
        if changes:
            names = ", ".join(sorted({Path(path).name for _, path in changes}))
            console.print(f"[bold]{names} changed[/]: restarting")
            processes.restart()
        else:
            processes.check()
