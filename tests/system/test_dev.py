"""`jobhook dev`: the first thing that anybody runs, so it is run here as they do."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from dotenv import dotenv_values
from redis import Redis

from app.cli.embedded import EmbeddedServer, free_port
from app.delivery.samples import sample
from app.delivery.signature import sign
from app.receiver.endpoint import PATH
from tests.support import json_lines, wait_until
from tests.support.processes import clean_environment, family
from tests.support.stack import ROOT, STOP_SECONDS

READY = "Stop:          Ctrl-C"


class Dev:
    """A folder, and the `jobhook dev` that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._output = folder / "output"
        self._processes: list[subprocess.Popen[bytes]] = []
        taken = ("JOBHOOK_", "JOBSITEON_", "REDIS_URL")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(taken)} | {
            "PYTHONPATH": str(ROOT),
            "JOBHOOK_PORT": str(self.port),
            "JOBHOOK_WORKERS": "1",
            "JOBHOOK_LOG_FORMAT": "json",
        }

    def start(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app", "dev", *options],
                cwd=self.folder,
                env=self._environment | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def start_and_wait(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        process = self.start(*options, **environment)
        self.wait_for(process, READY)
        return process

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Another command in the same folder."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.folder,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, process: "subprocess.Popen[bytes]", text: str, times: int = 1) -> None:
        def said() -> bool:
            assert process.poll() is None, self.output()
            return self.output().count(text) >= times

        wait_until(said, f"{text!r} in the output")

    def deliver(self) -> int:
        """The status of a delivery signed with the local key; 0 if nobody answers."""
        body = sample()
        key = (self.folder / ".data/api-key").read_bytes()
        try:
            return httpx.post(
                f"http://127.0.0.1:{self.port}{PATH}", content=body, headers={"X-Signature": sign(key, body)}
            ).status_code
        except httpx.HTTPError:
            return 0

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dev]:
    monkeypatch.delenv("JOBHOOK_ENV_FILE")
    (tmp_path / "folder").mkdir()
    made = Dev(tmp_path / "folder")
    yield made
    made.close()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_dev_runs_everything_leaves_nothing_running_and_keeps_the_data(dev: Dev) -> None:
    """P1: what was recorded is there again after the next start."""
    process = dev.start_and_wait("--no-reload")
    output = dev.output()
    assert f"Jobhook receives at http://127.0.0.1:{dev.port}{PATH}. A sample delivery:" in output
    assert re.search(r"^  200  accepted   [0-9a-f]{32}  \d+\.\d ms$", output, re.MULTILINE)
    assert re.search(r"^  [0-9a-f]{32}  invoice\.paid  done$", output, re.MULTILINE)
    assert "Send another:  python -m app send job.created\n" in output
    assert "Look at all:   python -m app events\n" in output
    sent = dev.run("send", "job.created")
    assert (sent.returncode, sent.stderr) == (0, "")
    first = json_lines(dev.run("events", "--json").stdout)
    assert {event["type"] for event in first} == {"invoice.paid", "job.created"}
    assert dev.run("doctor").returncode == 0

    second = dev.run("dev")
    assert second.returncode == 2
    assert second.stderr == (
        f"`jobhook dev` is already running on .data (pid {process.pid}). Stop it, or choose --data.\n"
    )
    assert dev.run("dev").stderr == second.stderr  # it has not emptied the other's file

    _stop_and_look(dev, process, signal.SIGINT)
    process = dev.start_and_wait("--no-reload")
    again = {event["id"] for event in json_lines(dev.run("events", "--json").stdout)}
    assert {event["id"] for event in first} < again
    _stop_and_look(dev, process, signal.SIGTERM)


def _stop_and_look(dev: Dev, process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    remembered = dev.folder / ".data/dev.env"
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600  # P7
    redis_port = urlsplit(dotenv_values(remembered)["REDIS_URL"]).port
    below = set(family(process.pid)) - {process.pid}
    assert len(below) >= 4  # Valkey, receiver, supervisor, worker
    process.send_signal(number)
    assert process.wait(STOP_SECONDS) == 0, dev.output()
    assert "Stopping: workers finish what they have in hand." in dev.output()
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    assert not listening(dev.port)
    assert redis_port
    assert not listening(redis_port)
    assert not remembered.exists()
    assert "Traceback" not in dev.output()


def save(file: Path, text: str) -> None:
    """All at once, as editors do: between emptying a file and filling it, it would be seen empty."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)


def logs(text: str) -> str:
    """A module with a handler that logs so."""
    return f'import logging\nfrom workers import on\n@on("*")\ndef f(e):\n    logging.getLogger("x").info("{text}")\n'


def test_dev_restarts_when_a_file_changes_and_outlives_a_broken_one(dev: Dev) -> None:
    handlers = dev.folder / "mine.py"
    save(handlers, logs("handled by the first"))
    process = dev.start_and_wait(JOBHOOK_HANDLERS="mine")
    dev.wait_for(process, "handled by the first")

    save(handlers, "def (")
    dev.wait_for(process, "mine.py changed: restarting")
    dev.wait_for(process, "A process ended: see above. It starts again when a file changes.")
    assert "SyntaxError" in dev.output()

    save(handlers, logs("handled by the second one"))
    dev.wait_for(process, "mine.py changed: restarting", times=2)
    wait_until(lambda: dev.deliver() == 200, "the receiver")
    dev.wait_for(process, "handled by the second one")


def test_a_restart_does_not_wait_for_a_slow_handler(dev: Dev) -> None:
    """P2: its event runs again, with the code as it is then."""
    handlers = dev.folder / "mine.py"
    save(handlers, logs("handled by the first"))
    process = dev.start_and_wait(JOBHOOK_HANDLERS="mine", JOBHOOK_HANDLER_TIMEOUT="1h")
    slow = (
        'from workers import on\n@on("*")\ndef f(e):\n    import time\n    print("it is slow")\n    time.sleep(3600)\n'
    )
    save(handlers, slow)
    dev.wait_for(process, "mine.py changed: restarting")
    wait_until(lambda: dev.deliver() == 200, "the receiver")
    dev.wait_for(process, "it is slow")
    save(handlers, logs("handled by the second one"))
    dev.wait_for(process, "handled by the second one")
    assert "A handler was interrupted for that: its event runs again." in dev.output()


def test_a_closed_terminal_stops_everything(dev: Dev) -> None:
    """The shell sends a SIGHUP, and so does the kernel; nothing can be printed any more."""
    master, terminal = os.openpty()
    with open(terminal, "wb", buffering=0) as output:  # noqa: PTH123 - a descriptor, not a path
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "dev", "--no-reload"],
            cwd=dev.folder,
            env=dev._environment,
            stdin=output,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    dev._processes.append(process)
    said = b""
    while READY.encode() not in said:
        said += os.read(master, 65536)
    below = set(family(process.pid)) - {process.pid}
    os.close(master)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    process.wait(STOP_SECONDS)
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    assert not (dev.folder / ".data/dev.env").exists()


def test_nohup_is_heeded(dev: Dev) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = dev.start("--no-reload")
    finally:
        signal.signal(signal.SIGHUP, before)
    dev.wait_for(process, READY)
    process.send_signal(signal.SIGHUP)
    assert dev.deliver() == 200


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_dev_does_not_touch_a_redis_that_is_configured(dev: Dev, own_server: EmbeddedServer, place: str) -> None:
    """A sample `invoice.paid` must not be recorded in production's."""
    environment = {}
    if place == "environment":
        environment = {"REDIS_URL": own_server.url, "JOBHOOK_DURABILITY": "replica"}
    else:
        (dev.folder / ".env").write_text(f"REDIS_URL={own_server.url}\nJOBHOOK_DURABILITY=replica\n")
    dev.start_and_wait("--no-reload", **environment)
    assert "REDIS_URL is set, but its Redis is not touched" in dev.output()
    with Redis.from_url(own_server.url) as redis:
        assert redis.info("stats")["total_connections_received"] <= 3  # those of the fixture, and this one
        assert redis.keys() == []
    prefix = ("REDIS_URL= " if environment else "") + "JOBHOOK_ENV_FILE=.data/dev.env "
    assert f"Look at all:   {prefix}python -m app events\n" in dev.output()
    more = dict(word.split("=") for word in prefix.split())
    found = json_lines(dev.run("events", "--json", **environment | more).stdout)
    assert [event["type"] for event in found] == ["invoice.paid"]


def test_without_a_configured_redis_none_can_be_used(dev: Dev) -> None:
    ended = dev.run("dev", "--redis-from-env")
    assert (ended.returncode, ended.stderr) == (2, "--redis-from-env: REDIS_URL is not set.\n")


def test_a_placeholder_is_no_key_and_the_local_one_takes_its_place(dev: Dev) -> None:
    (dev.folder / ".env").write_text("JOBSITEON_API_KEY=change-me\n")
    dev.start_and_wait("--no-reload")
    assert "JOBSITEON_API_KEY is a placeholder: a key of this folder takes its place." in dev.output()
    assert dev.deliver() == 200
    sent = dev.run("send", "job.created", JOBHOOK_ENV_FILE=".data/dev.env")
    assert (sent.returncode, sent.stderr) == (0, "")


def test_a_sample_is_not_forwarded(dev: Dev) -> None:
    """To a system that would take the invented invoice for a real one."""
    forward = {"JOBHOOK_FORWARD_URLS": "*=http://127.0.0.1:9/erp", "JOBHOOK_FORWARD_SECRET": "whsec_" + "QUJD" * 11}
    dev.start_and_wait("--no-reload", **forward)
    assert "No sample is delivered" in dev.output()
    assert dev.run("events").stdout == "No events.\n"


def test_a_server_left_by_one_that_was_killed_is_named(dev: Dev) -> None:
    process = dev.start_and_wait("--no-reload")
    (dev_pid, server_pid) = (dev.folder / ".data/lock").read_text().split()
    assert int(dev_pid) == process.pid
    below = set(family(process.pid)) - {process.pid}
    process.kill()
    process.wait()
    try:
        ended = dev.run("dev")
        assert ended.returncode == 2
        assert f"has left its server running (pid {server_pid}). End it: kill {server_pid}\n" in ended.stderr
    finally:
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("given", "options"), [([], ""), (["PORT=8123"], "--port 8123")])
def test_make_run_takes_a_port(given: list[str], options: str) -> None:
    shown = subprocess.run(
        ["make", "--dry-run", "run", *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={name: text for name, text in clean_environment().items() if not name.startswith("MAKE")},
    )
    assert shown.stdout.splitlines()[-1].split() == [".venv/bin/jobhook", "dev", *options.split()]


def test_dev_uses_a_redis_that_is_configured_and_tells_when_a_process_ends(
    dev: Dev, own_server: EmbeddedServer
) -> None:
    """Also one that is not set up perfectly: warnings do not keep it from being ready."""
    process = dev.start_and_wait(
        *("--no-reload", "--data", "elsewhere", "--redis-from-env"),
        REDIS_URL=own_server.url,
        JOBHOOK_DURABILITY="memory",
    )
    assert not (dev.folder / "elsewhere/valkey").exists()
    below = set(family(process.pid)) - {process.pid}
    receiver = next(pid for pid in below if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(receiver, signal.SIGKILL)
    assert process.wait(STOP_SECONDS) == 2
    assert dev.output().endswith("A process ended: see above.\n")
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    assert not (dev.folder / "elsewhere/dev.env").exists()


def test_a_port_in_use_is_told_before_anything_is_started(dev: Dev) -> None:
    with socket.create_server(("127.0.0.1", dev.port)):
        ended = dev.run("dev")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"JOBHOOK_PORT: cannot listen on 127.0.0.1:{dev.port}: Address already in use. Try --port.\n"
    )
    assert not (dev.folder / ".data/valkey").exists()


def test_a_data_folder_that_cannot_be_written_is_told(dev: Dev) -> None:
    (dev.folder / "file").touch()
    ended = dev.run("dev", "--data", "file")
    assert ended.returncode == 2
    assert ended.stderr == "file cannot be written (File exists). Choose another folder with --data.\n"


def test_a_line_of_the_env_file_that_cannot_be_read_is_told_before_anything_is_started(dev: Dev) -> None:
    """P10."""
    (dev.folder / ".env").write_text("JOBHOOK_ALLOWED_IPS: 10.0.0.0/8\n")
    ended = dev.run("dev")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == ".env, line 1: write NAME=value, with a = instead of the colon\n"
    assert not (dev.folder / ".data/valkey").exists()


def test_a_wrong_setting_is_told_before_anything_is_started(dev: Dev) -> None:
    ended = dev.run("dev", JOBHOOK_WORKERS="none")
    assert ended.returncode == 2
    assert ended.stderr.startswith("JOBHOOK_WORKERS: ")
    assert not (dev.folder / ".data/valkey").exists()
