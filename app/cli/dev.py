"""`jobhook dev`: Valkey, receiver and workers in one terminal, with a sample delivery to begin with."""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Self

import httpx
import typer

from app.cli.embedded import DURABLE, HOST, EmbeddedServer, free_port
from app.cli.inspect import life
from app.cli.output import console, program
from app.cli.send import deliver, local_url, summary
from app.cli.sockets import bind, close
from app.config.files import env_line
from app.config.names import DEV
from app.config.settings import Settings
from app.config.sources import configured_names, configured_values, load_settings, override
from app.delivery.samples import sample
from app.errors import ConfigError
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from app.receiver.endpoint import PATH

if TYPE_CHECKING:
    from watchfiles.main import FileChange

START_SECONDS = 30.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_CHECK_SECONDS = 0.5
_WATCH_MS = 500
DEFAULT_DATA = Path(".data")
ENV_FILE_NAME = "dev.env"
_SIMULATOR = "app.simulator"
_EXAMPLE = "workers/handlers/example.py"
_ENDED = "A process ended: see above."


def dev(
    port: Annotated[int | None, typer.Option(help="Port of the receiver.", show_default="JOBHOOK_PORT")] = None,
    data: Annotated[Path, typer.Option(help="Where the local server keeps its data.")] = DEFAULT_DATA,
    reload: Annotated[bool, typer.Option(help="Restart when a Python file changes.")] = True,
) -> None:
    """Run everything here, for trying out and for writing handlers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stopped either way, in good order
    with _folder(data) as lock:
        host, port = _configure(data, port)
        close(bind(host, port))  # tells in one line that the port is taken, before anything is started
        with _redis(data, lock), _Processes() as processes, _simulated_api(processes), _remembered(data):
            processes.start()
            settings = load_settings()
            url = local_url(settings)
            _wait_until_ready(url, processes)
            console.print(f"\n[bold]Jobhook[/] receives at [bold]{url}{PATH}[/]. A sample delivery:\n")
            _deliver_sample(url + PATH, settings)
            _say_what_to_do()
            try:
                _watch(processes, reload=reload)
            except KeyboardInterrupt:
                console.print("\nStopping: workers finish what they have in hand.")


def local_env_file(folder: Path) -> Path:
    """The settings of the `jobhook dev` that runs in a folder, for the other commands."""
    return folder / DEFAULT_DATA / ENV_FILE_NAME


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


def _configure(data: Path, port: int | None) -> tuple[str, int]:
    """What is not configured gets a local value: a key, plain HTTP. Returns where to listen."""
    override(DEV, "true")
    names = configured_names()
    if "JOBSITEON_API_KEY" not in names:
        override("JOBSITEON_API_KEY", _local_key(data / "api-key"))
    if "JOBHOOK_REQUIRE_HTTPS" not in names:
        override("JOBHOOK_REQUIRE_HTTPS", "false")
    settings = load_settings() if port is None else load_settings(port=port)
    override("JOBHOOK_PORT", str(settings.port))
    return settings.host, settings.port


@contextmanager
def _redis(data: Path, lock: int) -> Iterator[None]:
    """A Valkey server, unless a Redis is configured."""
    if "REDIS_URL" in configured_names():
        yield
        return
    with EmbeddedServer(data / "valkey", *DURABLE, inherit=(lock,)) as server:
        override("REDIS_URL", server.url)
        yield


def _local_key(file: Path) -> str:
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(24))
    return file.read_text()


@contextmanager
def _remembered(data: Path) -> Iterator[None]:
    """Lets the other commands know what runs here."""
    values = configured_values()
    file = data / ENV_FILE_NAME
    file.touch(mode=0o600)
    file.write_text("".join(env_line(*item) for item in values.items()))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


class _Processes:
    """The receiver and the workers, as child processes that a Ctrl-C does not reach by itself."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, ...]] = [("app", "serve"), ("workers",)]
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts them all."""
        for module in self.modules:
            command = [sys.executable, "-m", *module]
            self._running.append(subprocess.Popen(command, start_new_session=True))  # noqa: S603 - our own modules

    def stop(self) -> None:
        """Lets both finish what they have in hand; a Ctrl-C meanwhile does not."""
        for process in self._running:
            process.terminate()
        deadline = monotonic() + STOP_SECONDS
        try:
            for process in self._running:
                process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            for process in self._running:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._running.clear()

    def restart(self) -> None:
        """Starts both with the code as it is now."""
        self.stop()
        self.start()

    @property
    def complete(self) -> bool:
        """Whether both are running. One that is not has said why."""
        return all(process.poll() is None for process in self._running)


@contextmanager
def _simulated_api(processes: _Processes) -> Iterator[None]:
    """In a clone of the repository, handlers talk to the simulator of the tests unless an API is configured."""
    configured = {"JOBSITEON_API_URL", "JOBSITEON_API_TOKEN"} & configured_names()
    if not configured and find_spec("tests") and find_spec(_SIMULATOR):
        port = free_port()
        processes.modules.insert(0, (_SIMULATOR, "--port", str(port)))
        override("JOBSITEON_API_URL", f"http://{HOST}:{port}/v1")
        override("JOBHOOK_API_PLAIN_LOOPBACK", "true")
    yield


def _wait_until_ready(url: str, processes: _Processes) -> None:
    deadline = monotonic() + START_SECONDS
    with httpx.Client(base_url=url) as client:
        while not _ready(client):
            if not processes.complete:
                raise ConfigError(_ENDED)
            if monotonic() > deadline:
                raise ConfigError(f"{url}/readyz does not get ready. See: {program()} doctor")
            sleep(_POLL_SECONDS)


def _ready(client: httpx.Client) -> bool:
    try:
        answer = client.get("/readyz")
        return answer.is_success and all(problem["check"] != "workers" for problem in answer.json()["problems"])
    except (httpx.HTTPError, ValueError):
        return False


def _deliver_sample(url: str, settings: Settings) -> None:
    (answer, ms), *_ = deliver(url, sample(), settings)
    console.print("  " + summary(answer, ms))
    if not answer.is_success:
        raise ConfigError("The sample delivery was refused.")
    record = _wait_until_tried(Inbox(connect(settings), settings), answer.json()["id"])
    console.print()
    for line in life(record):
        console.print("  " + line)


def _wait_until_tried(inbox: Inbox, id: str) -> Record:
    deadline = monotonic() + START_SECONDS
    while (record := inbox.get(id)).state in {"queued", "running"} and monotonic() < deadline:
        sleep(_POLL_SECONDS)
    return record


def _say_what_to_do() -> None:
    console.print(
        f"\nSend another:  [bold]{program()} send job.created[/]\nLook at all:   [bold]{program()} events[/]",
    )
    if Path(_EXAMPLE).is_file():
        console.print(f"Edit first:    [bold]{_EXAMPLE}[/] (the workers restart by themselves)")
    if load_settings().api_plain_loopback:
        console.print("API:           a simulator; set JOBSITEON_API_TOKEN and it is JobsiteOn's own")
    console.print("Stop:          Ctrl-C\n")


def _watch(processes: _Processes, *, reload: bool) -> None:
    """Until a Ctrl-C; without reload, or until a process ends."""
    if not reload:
        while processes.complete:
            sleep(_CHECK_SECONDS)
        raise ConfigError(_ENDED)
    folders = [folder for folder in ("app", "workers") if Path(folder).is_dir()] or ["."]
    was_complete = True
    for changes in _changes(folders):
        if changes:
            names = ", ".join(sorted({Path(path).name for _, path in changes}))
            console.print(f"[bold]{names} changed[/]: restarting")
            processes.restart()
        elif was_complete and not processes.complete:
            console.print(f"[red]{_ENDED}[/] It starts again when a file changes.")
        was_complete = processes.complete


def _changes(folders: list[str]) -> "Iterator[set[FileChange]]":
    """The Python files changed, twice a second; often none."""
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 - in the dev extra only
    except ImportError:
        raise ConfigError("Reloading needs watchfiles: pip install 'jobhook[dev]', or use --no-reload.") from None
    return watch(*folders, watch_filter=PythonFilter(), rust_timeout=_WATCH_MS, yield_on_timeout=True)
