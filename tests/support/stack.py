"""Jobhook as real processes: receiver and supervisor, with their logs in files."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
from redis import Redis

from app.cli.embedded import free_port
from app.config.settings import Settings
from app.delivery.signature import sign
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record
from app.receiver.endpoint import PATH
from tests.support import wait_until
from tests.support.processes import clean_environment

KEY = "key-of-the-tests-0123456789"
HANDLERS = "tests.support.handlers"
ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30
PATIENT_ACK_SECONDS = 1.9
"""The most that can be set: a busy machine may stall for a second, and that is not what is tested."""


def make_settings(redis_url: str, **overrides: Any) -> Settings:
    """Settings for code that runs in the test's own process."""
    defaults: dict[str, Any] = {"api_key": KEY, "redis_url": redis_url, "handlers": (HANDLERS,), "log_format": "json"}
    return Settings(**defaults | {"ack_budget": PATIENT_ACK_SECONDS} | overrides)


COMMAND_SECONDS = 60.0
"""How long a command of the command line may take."""


class Stack:
    """A receiver and workers on a Redis. What the test does not stop is stopped at its end."""

    def __init__(self, folder: Path, redis_url: str, **environment: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self.settings = make_settings(redis_url)
        self.redis: Redis = connect(self.settings)
        self.inbox = Inbox(self.redis, self.settings)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.files: tuple[int, ...] = ()
        """Open files that the processes inherit."""
        self.code = ROOT
        """The folder whose code is started: another version's, in tests of upgrades."""
        self.output: int | None = None
        """A file descriptor for what the next processes print; their logs by default."""
        self.environment = {
            **clean_environment(),
            "JOBSITEON_API_KEY": KEY,
            "REDIS_URL": redis_url,
            "JOBHOOK_HANDLERS": HANDLERS,
            "JOBHOOK_REQUIRE_HTTPS": "false",
            "JOBHOOK_LOG_FORMAT": "json",
            "JOBHOOK_ACK_BUDGET": f"{PATIENT_ACK_SECONDS}s",
            "JOBHOOK_ENV_FILE": os.devnull,
            **environment,
        }

    def start(self, name: str, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Starts `python -m …` with its output in `<name>.log`, or where `self.output` is."""
        with self.log_file(name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.code,
                env=self.environment | environment,
                stdout=log if self.output is None else self.output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.files,
            )
        self.processes.append(process)
        return process

    def jobhook(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a command of the command line to its end, with something to read if it asks for that."""
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            input=given,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def start_receiver(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Starts a receiver and waits until it answers."""
        process = self.start("receiver", "app", "serve", "--port", str(self.port), *options, **environment)
        wait_until(lambda: self._answers(process), "the receiver")
        return process

    def start_workers(self, number: int = 1, **environment: str) -> "subprocess.Popen[bytes]":
        """Starts a supervisor and waits until its workers are there."""
        before = self.redis.scard("rq:workers")
        process = self.start("workers", "workers", JOBHOOK_WORKERS=str(number), **environment)
        wait_until(lambda: self.redis.scard("rq:workers") >= before + number, "the workers")
        return process

    def _answers(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, self.logs()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").is_success
        except httpx.HTTPError:
            return False

    def deliver(self, body: bytes | dict[str, Any], **headers: str) -> httpx.Response:
        """Signs and posts a delivery."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return httpx.post(
            self.url, content=raw, headers={"X-Signature": sign(KEY.encode(), raw), **headers}, timeout=10
        )

    def deliver_event(self, type: str, event_id: str, **data: Any) -> str:
        """Delivers an event that has to be accepted; its id."""
        answer = self.deliver({"id": event_id, "type": type, "data": {"id": "res_1", **data}})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def wait_for(self, id: str, state: str) -> Record:
        """The record once it is in a state."""
        wait_until(lambda: self.inbox.get(id).state == state, f"{id} to be {state}: {self.inbox.get(id)}")
        return self.inbox.get(id)

    def effects(self, id: str) -> list[str]:
        """What the handlers of tests/support/handlers.py have noted for an event."""
        entries: Any = self.redis.lrange(f"effects:{id}", 0, -1)
        return [entry.decode() for entry in entries]

    def log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        """Everything all processes have printed."""
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    def log_lines(self, event: str, at_least: int = 0) -> list[dict[str, Any]]:
        """The JSON log lines of an event, once there are so many: a thread of each process writes them."""
        wait_until(lambda: len(self._log_lines(event)) >= at_least, f"{at_least} lines of {event!r}")
        return self._log_lines(event)

    def _log_lines(self, event: str) -> list[dict[str, Any]]:
        lines = [line for line in self.logs().splitlines() if line.startswith("{")]
        return [entry for entry in map(orjson.loads, lines) if entry["event"] == event]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise AssertionError(f"{process.args!r} did not stop:\n{self.logs()}") from None
        self.redis.close()


MakeStack = Callable[..., Stack]
