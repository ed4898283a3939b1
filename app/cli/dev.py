"""`jobhook dev`: Valkey, receiver and workers in one terminal, with a sample delivery to begin with."""

import fcntl
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import httpx
import typer

from app.cli.embedded import DURABLE, HOST, EmbeddedServer, free_port
from app.cli.life import life
from app.cli.output import console, program
from app.cli.processes import Processes
from app.cli.send import deliver, local_url, summary
from app.cli.sockets import bind, close
from app.config.files import env_line
from app.config.names import DEV, ENV_FILE
from app.config.pasted import is_placeholder
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
    redis_from_env: Annotated[
        bool, typer.Option("--redis-from-env", help="Use the Redis that REDIS_URL names: the sample is recorded there.")
    ] = False,
) -> None:
    """Run everything here, for trying out and for writing handlers."""
    _stop_by_signals()
    with _folder(data) as lock:
        aside = _set_aside(redis_from_env=redis_from_env)
        prefix = _prefix(data, aside)
        host, port = _configure(data, port, aside)
        close(bind(host, port))  # tells in one line that the port is taken, before anything is started
        with (
            _redis(data, lock, from_env=redis_from_env),
            Processes() as processes,
            _simulated_api(processes),
            _remembered(data),
        ):
            processes.start()
            changes = _changes() if reload else None  # from here on none is missed
            settings = load_settings()
            url = local_url(settings)
            _wait_until_ready(url, processes)
            console.print(f"\n[bold]Jobhook[/] receives at [bold]{url}{PATH}[/].", end=" ")
            _deliver_sample(url + PATH, settings)
            _say_what_to_do(prefix)
            try:
                _watch(processes, changes)
            except KeyboardInterrupt:
                with suppress(OSError):  # the terminal may have been closed
                    console.print("\nStopping: workers finish what they have in hand.")


def _stop_by_signals() -> None:
    """SIGTERM, and SIGHUP of a terminal that is closed, stop everything in good order, as a Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, _hang_up)


def _hang_up(_: int, __: FrameType | None) -> NoReturn:
    # A shell and the kernel both send one: the second must not interrupt the stop.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


def local_env_file(folder: Path) -> Path:
    """The settings of the `jobhook dev` that runs in a folder, for the other commands."""
    return folder / DEFAULT_DATA / ENV_FILE_NAME


@contextmanager
def _folder(data: Path) -> Iterator[TextIO]:
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a+")  # without emptying it: it may be another's
    except OSError as error:
        raise ConfigError(f"{data} cannot be written ({error.strerror}). Choose another folder with --data.") from None
    with lock:
        try:
            # The server inherits it, so that it lasts as long as anybody uses the data.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(_who_has(data, lock)) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock


def _who_has(data: Path, lock: TextIO) -> str:
    """Whom the lock belongs to: its file has the pids of the `jobhook dev` and of its server."""
    lock.seek(0)
    pids = [int(line) for line in lock.read().split() if line.isdecimal()]
    running = [pid for pid in pids if _is_running(pid)]
    if pids and running and pids[0] not in running:
        left = ", ".join(map(str, running))
        return f"A `jobhook dev` on {data} was killed and has left its server running (pid {left}). End it: kill {left}"
    pid = f" (pid {pids[0]})" if pids else ""
    return f"`jobhook dev` is already running on {data}{pid}. Stop it, or choose --data."


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _set_aside(*, redis_from_env: bool) -> list[str]:
    """The variables that are configured, but not used: each is said."""
    aside = []
    if is_placeholder(configured_values().get("JOBSITEON_API_KEY", "")):
        aside.append("JOBSITEON_API_KEY")
        console.print("JOBSITEON_API_KEY is a placeholder: a key of this folder takes its place.", style="yellow")
    has_redis = "REDIS_URL" in configured_names()
    if redis_from_env and not has_redis:
        raise ConfigError("--redis-from-env: REDIS_URL is not set.")
    if has_redis and not redis_from_env:
        aside.append("REDIS_URL")
        console.print(
            "REDIS_URL is set, but its Redis is not touched: a server of this folder takes its place. "
            "To use it, with the sample delivery recorded there: --redis-from-env",
            style="yellow",
        )
    return aside


def _prefix(data: Path, aside: list[str]) -> str:
    """What has to stand before other commands, so that they mean what runs here and not what is configured."""
    if not aside:
        return ""
    in_environment = {name.upper() for name in os.environ}
    emptied = [f"{name}= " for name in aside if name in in_environment]  # it would go before what the file says
    return "".join(emptied) + f"{ENV_FILE}={data / ENV_FILE_NAME} "


def _configure(data: Path, port: int | None, aside: list[str]) -> tuple[str, int]:
    """What is not configured, or set aside, gets a local value: a key, plain HTTP. Returns where to listen."""
    override(DEV, "true")
    names = configured_names()
    if "JOBSITEON_API_KEY" in aside or "JOBSITEON_API_KEY" not in names:
        override("JOBSITEON_API_KEY", _local_key(data / "api-key"))
    if "REDIS_URL" in aside:
        override("JOBHOOK_DURABILITY", "fsync")  # what is configured is meant for that Redis: it may have replicas
    if "JOBHOOK_REQUIRE_HTTPS" not in names:
        override("JOBHOOK_REQUIRE_HTTPS", "false")
    settings = load_settings() if port is None else load_settings(port=port)
    override("JOBHOOK_PORT", str(settings.port))
    return settings.host, settings.port


@contextmanager
def _redis(data: Path, lock: TextIO, *, from_env: bool) -> Iterator[None]:
    """A Valkey server of our own, or the Redis that is configured."""
    if from_env:
        yield
        return
    with EmbeddedServer(data / "valkey", *DURABLE, inherit=(lock.fileno(),)) as server:
        lock.write(f"{server.pid}\n")
        lock.flush()
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


@contextmanager
def _simulated_api(processes: Processes) -> Iterator[None]:
    """In a clone of the repository, handlers talk to the simulator of the tests unless an API is configured."""
    configured = {"JOBSITEON_API_URL", "JOBSITEON_API_TOKEN"} & configured_names()
    if not configured and find_spec("tests") and find_spec(_SIMULATOR):
        port = free_port()
        processes.modules.insert(0, (_SIMULATOR, "--port", str(port)))
        override("JOBSITEON_API_URL", f"http://{HOST}:{port}/v1")
        override("JOBHOOK_API_PLAIN_LOOPBACK", "true")
    yield


def _wait_until_ready(url: str, processes: Processes) -> None:
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
    if settings.forward_urls:
        console.print("No sample is delivered: JOBHOOK_FORWARD_URLS would pass it on to your systems.")
        return
    console.print("A sample delivery:\n")
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


def _say_what_to_do(prefix: str) -> None:
    called = prefix + program()
    console.print(f"\nSend another:  [bold]{called} send job.created[/]\nLook at all:   [bold]{called} events[/]")
    if Path(_EXAMPLE).is_file():
        console.print(f"Edit first:    [bold]{_EXAMPLE}[/] (the workers restart by themselves)")
    if load_settings().api_plain_loopback:
        console.print("API:           a simulator; set JOBSITEON_API_TOKEN and it is JobsiteOn's own")
    console.print("Stop:          Ctrl-C\n")


def _watch(processes: Processes, changes: "Iterator[set[FileChange]] | None") -> None:
    """Until a Ctrl-C; without changes to wait for, or until a process ends."""
    if changes is None:
        while processes.complete:
            sleep(_CHECK_SECONDS)
        raise ConfigError(_ENDED)
    was_complete = True
    for found in changes:
        if found:
            names = ", ".join(sorted({Path(path).name for _, path in found}))
            console.print(f"[bold]{names} changed[/]: restarting")
            if not processes.restart():
                console.print("A handler was interrupted for that: its event runs again.", style="yellow")
            was_complete = True
        elif was_complete and not processes.complete:
            console.print(f"[red]{_ENDED}[/] It starts again when a file changes.")
            was_complete = False


def _changes() -> "Iterator[set[FileChange]]":
    """The Python files changed since this was called, twice a second; often none."""
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 - in the dev extra only
    except ImportError:
        raise ConfigError("Reloading needs watchfiles: pip install 'jobhook[dev]', or use --no-reload.") from None
    folders = [folder for folder in ("app", "workers") if Path(folder).is_dir()] or ["."]
    changes = watch(*folders, watch_filter=PythonFilter(), rust_timeout=_WATCH_MS, yield_on_timeout=True)
    return chain([next(changes)], changes)  # the watch begins when it is first asked
