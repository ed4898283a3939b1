"""Keys change while everything runs: nothing is refused or restarted, and the old key's silence is seen."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx
import orjson
import pytest

from app.cli.embedded import EmbeddedServer
from app.config.keys import fingerprint
from app.delivery.signature import sign
from app.simulator import Api, serve
from tests.support import wait_until
from tests.support.aws import secrets_manager
from tests.support.deliveries import queue_events
from tests.support.processes import children
from tests.support.stack import KEY, ROOT, MakeStack, Stack

NEW = "key-after-the-rotation-0123456789"
HOUR_MS = 3600_000


class Keys:
    """A file of settings with keys, swapped as a whole."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.write(f"JOBSITEON_API_KEY={KEY}")

    def write(self, *lines: str) -> None:
        other = self.file.with_suffix(".new")
        other.write_text("".join(f"{line}\n" for line in lines))
        other.replace(self.file)

    def rotate(self) -> None:
        self.write(f"JOBSITEON_API_KEY={NEW}", f"JOBSITEON_PREVIOUS_API_KEYS={KEY}")


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "jobhook.env")


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack, keys: Keys) -> Stack:
    """Not started, with its keys in a file."""
    made = make_stack(server.url, JOBHOOK_ENV_FILE=str(keys.file))
    del made.environment["JOBSITEON_API_KEY"]
    return made


def post(stack: Stack, key: str, body: bytes) -> httpx.Response:
    return httpx.post(stack.url, content=body, headers={"X-Signature": sign(key.encode(), body)}, timeout=10)


def accepts(stack: Stack, key: str) -> Callable[[], bool]:
    """Whether a key verifies. It is asked by one and the same event, so that only one is recorded."""
    return lambda: post(stack, key, b'{"id":"evt_probe","type":"test.ok","data":{}}').status_code == 200


def ready(stack: Stack) -> dict[str, Any]:
    answer = httpx.get(f"http://127.0.0.1:{stack.port}/readyz", timeout=10)
    return {problem["check"]: problem["finding"] for problem in answer.json()["problems"]}


def metric(stack: Stack, series: str) -> float | None:
    lines = httpx.get(f"http://127.0.0.1:{stack.port}/metrics", timeout=10).text.splitlines()
    found = [line.rsplit(" ", 1)[1] for line in lines if line.rsplit(" ", 1)[0] == series]
    return float(found[0]) if found else None


def shown(stack: Stack) -> dict[str, Any]:
    return {key["name"]: key for key in orjson.loads(stack.jobhook("keys", "--json").stdout)}


def silent_for_an_hour(stack: Stack, key: str) -> None:
    """Lets a key have verified its last delivery an hour earlier."""
    name = f"{fingerprint(key.encode())}:last"
    stack.redis.hincrby("jobhook:keys", name, -HOUR_MS)


class Load:
    """Deliveries from several senders without a pause, signed with the key of the moment, until it is ended."""

    def __init__(self, stack: Stack, senders: int = 3) -> None:
        self.key = KEY
        self.statuses: list[int] = []
        self.by_key: dict[str, int] = {KEY: 0, NEW: 0}
        self._stack = stack
        self._ends = Event()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(senders)
        self._senders = [self._pool.submit(self._send, number) for number in range(senders)]

    def _send(self, sender: int) -> None:
        with httpx.Client(timeout=10) as client:
            number = 0
            while not self._ends.is_set():
                key, number = self.key, number + 1
                body = orjson.dumps({"id": f"evt_{sender}_{number}", "type": "test.ok", "data": {}})
                answer = client.post(self._stack.url, content=body, headers={"X-Signature": sign(key.encode(), body)})
                with self._lock:
                    self.statuses.append(answer.status_code)
                    self.by_key[key] += 1

    def wait_for(self, key: str, more: int = 50) -> None:
        enough = self.by_key[key] + more
        wait_until(lambda: self.by_key[key] >= enough, f"{more} deliveries")

    def end(self) -> None:
        self._ends.set()
        for sender in self._senders:
            sender.result()
        self._pool.shutdown()


@pytest.fixture
def load(stack: Stack) -> Iterator[Load]:
    stack.start_receiver()
    made = Load(stack)
    yield made
    made.end()


def test_a_rotation_under_load_refuses_nothing_and_shows_when_the_old_key_may_go(load: Load, stack: Stack) -> None:
    """P10: the file is swapped, JobsiteOn goes over to the new key, the old one falls silent."""
    pid = stack.processes[0].pid
    keys = Keys(Path(stack.environment["JOBHOOK_ENV_FILE"]))
    load.wait_for(KEY)
    keys.rotate()
    wait_until(lambda: stack.log_lines("keys reloaded"), "the new key")
    load.wait_for(KEY)
    load.key = NEW
    load.wait_for(NEW)
    load.end()
    assert set(load.statuses) == {200}
    wait_until(lambda: shown(stack)["current"]["today"] == load.by_key[NEW], "what the new key has verified")
    both = shown(stack)
    assert both["previous 1"]["today"] == load.by_key[KEY]
    assert both["previous 1"]["says"].startswith("silent since ")
    assert "safe to revoke after " in both["previous 1"]["says"]
    silent_for_an_hour(stack, KEY)
    assert shown(stack)["previous 1"]["says"].endswith(": safe to revoke")
    assert ready(stack)["keys"].endswith(": safe to revoke")
    assert "safe to revoke" in stack.jobhook("doctor").stdout
    assert metric(stack, 'jobhook_verified_total{key="previous"}') == load.by_key[KEY] - both_before(load, stack)
    assert (metric(stack, 'jobhook_key_unused_seconds{key="previous"}') or 0) >= HOUR_MS / 1000

    keys.write(f"JOBSITEON_API_KEY={NEW}")
    wait_until(lambda: len(stack.log_lines("keys reloaded")) == 2, "the end of the rotation")
    assert post(stack, KEY, b'{"id":"evt_late"}').status_code == 401
    assert "keys" not in ready(stack)
    assert stack.processes[0].poll() is None
    assert [process.pid for process in stack.processes] == [pid]


def both_before(load: Load, stack: Stack) -> float:
    """What the key that is a previous one now has verified while it was the current one."""
    return (metric(stack, 'jobhook_verified_total{key="current"}') or 0) - load.by_key[NEW]


def test_a_swap_of_something_unusable_keeps_the_keys_and_says_so_everywhere(stack: Stack, keys: Keys) -> None:
    """P10, P9."""
    stack.start_receiver()
    keys.write("JOBSITEON_API_KEY=change-me")
    (line,) = stack.log_lines("keys not reloaded: those in force stay", at_least=1)
    assert "is a placeholder" in line["problem"]
    assert accepts(stack, KEY)()
    assert "is a placeholder" in ready(stack)["keys"]
    assert metric(stack, "jobhook_keys_not_reloaded") == 1
    assert "is a placeholder" in stack.jobhook("doctor").stdout
    keys.rotate()
    wait_until(accepts(stack, NEW), "the new key")
    assert metric(stack, "jobhook_keys_not_reloaded") == 0


def test_other_settings_of_the_same_file_are_named_and_wait(stack: Stack, keys: Keys) -> None:
    stack.start_receiver()
    keys.write(f"JOBSITEON_API_KEY={NEW}", "JOBHOOK_MAX_BODY_BYTES=10")
    wait_until(accepts(stack, NEW), "the new key")
    (line,) = stack.log_lines("settings changed: a restart puts them into force", at_least=1)
    assert line["names"] == ["JOBHOOK_MAX_BODY_BYTES"]
    assert ready(stack)["settings"].startswith("JOBHOOK_MAX_BODY_BYTES changed")


def test_all_receiver_processes_and_workers_go_over_to_the_new_key(
    stack: Stack, keys: Keys, server: EmbeddedServer
) -> None:
    api = Api(KEY, 100, 60)
    with serve(api) as served:
        stack.environment |= {
            "JOBHOOK_HANDLERS": "tests.support.api_handlers",
            "JOBSITEON_API_URL": f"{served.url}/v1",
            "JOBHOOK_API_PLAIN_LOOPBACK": "true",
            "JOBHOOK_LOG_LEVEL": "debug",
        }
        receiver = stack.start_receiver("--processes", "2")
        wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
        workers = stack.start_workers(2)
        before = {process.pid: children(process.pid) for process in (receiver, workers)}
        queue_events(stack.settings, 6, "api.read")
        wait_until(lambda: stack.inbox.stats().states["done"] == 6, "events with the old key")
        keys.rotate()
        wait_until(lambda: len(stack.log_lines("keys reloaded")) == 5, "two receivers, the supervisor, two workers")
        api.keys = {NEW: api.keys[KEY]}
        sent = len(api.seen)
        queue_events(stack.settings, 12, "api.read")  # six of them again
        queue_events(stack.settings, 6, "api.read_async")
        wait_until(lambda: sum(stack.inbox.stats().states[end] for end in ("done", "dead")) == 18, "the others")
        assert {seen.key for seen in api.seen[sent:]} == {NEW}
        assert {process.pid: children(process.pid) for process in (receiver, workers)} == before
        assert stack.inbox.stats().states["dead"] == 0


def test_a_sighup_has_every_process_read_its_keys_and_restarts_none(stack: Stack, keys: Keys) -> None:
    receiver = stack.start_receiver("--processes", "2")
    wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
    workers = stack.start_workers()
    before = {process.pid: children(process.pid) for process in (receiver, workers)}
    for process in (receiver, workers):
        os.kill(process.pid, signal.SIGHUP)
    wait_until(lambda: len(stack.log_lines("keys read: as before")) == 3, "two receivers and the supervisor")
    keys.write("")
    wait_until(lambda: len(stack.log_lines("keys not reloaded: those in force stay")) == 3, "the same three")
    assert accepts(stack, KEY)()
    assert {process.pid: children(process.pid) for process in (receiver, workers)} == before


def test_on_a_terminal_a_sighup_means_that_it_has_gone(stack: Stack) -> None:
    """Else receivers would go on behind the back of who has closed the window."""
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "app", "serve", "--port", str(stack.port), "--processes", "2"]
    with stack.log_file("receiver").open("ab") as log:
        receiver = subprocess.Popen(
            command, cwd=ROOT, env=stack.environment, stdin=theirs, stdout=log, stderr=log, start_new_session=True
        )
    stack.processes.append(receiver)
    wait_until(lambda: len(stack.log_lines("Application startup complete.")) == 2, "both processes")
    for end in (ours, theirs):
        os.close(end)
    os.kill(receiver.pid, signal.SIGHUP)
    assert receiver.wait(30) == 0


def test_a_single_receiver_survives_a_sighup_and_says_what_a_restart_is_needed_for(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    stack = make_stack(server.url)
    receiver = stack.start_receiver()
    os.kill(receiver.pid, signal.SIGHUP)
    (line,) = stack.log_lines("keys set in the environment change with a restart only", at_least=1)
    assert line["names"] == ["JOBSITEON_API_KEY"]
    assert accepts(stack, KEY)()
    told = stack.jobhook("keys").stdout
    assert "Set in the environment, so that a change needs a restart: JOBSITEON_API_KEY." in told


def test_a_secret_that_kubernetes_swaps_is_taken_over(
    server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    mount(folder, "1", JOBSITEON_API_KEY=KEY, JOBSITEON_PREVIOUS_API_KEYS="")
    stack = make_stack(server.url, JOBHOOK_SECRETS_DIR=str(folder))
    del stack.environment["JOBSITEON_API_KEY"]
    stack.start_receiver()
    mount(folder, "2", JOBSITEON_API_KEY=NEW, JOBSITEON_PREVIOUS_API_KEYS=KEY)
    wait_until(accepts(stack, NEW), "the new key")
    assert accepts(stack, KEY)()


def test_keys_of_a_secrets_manager_are_taken_over_at_a_sighup(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """By receiver and workers: P6, nothing is refused."""
    with secrets_manager() as manager:
        manager.keep(JOBSITEON_API_KEY=KEY)
        stack = make_stack(server.url, **manager.environment)
        del stack.environment["JOBSITEON_API_KEY"]
        processes = (stack.start_receiver(), stack.start_workers())
        assert accepts(stack, KEY)()
        manager.keep(JOBSITEON_API_KEY=NEW, JOBSITEON_PREVIOUS_API_KEYS=KEY)
        for process in processes:
            os.kill(process.pid, signal.SIGHUP)
        wait_until(accepts(stack, NEW), "the new key")
        stack.log_lines("keys reloaded", at_least=len(processes))
        assert accepts(stack, KEY)()


def mount(folder: Path, version: str, **secrets: str) -> None:
    """As Kubernetes does: the files in a new folder, and one symlink that is swapped."""
    data = folder / f"..{version}"
    data.mkdir(parents=True)
    for name, text in secrets.items():
        (data / name).write_text(text)
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").replace(folder / "..data")
    for name in secrets:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def test_a_key_is_known_again_also_when_it_is_retired(stack: Stack, keys: Keys) -> None:
    """P7: it is read unseen, and shown nowhere."""
    stack.start_receiver()
    assert post(stack, KEY, b'{"id":"evt_1","type":"test.ok"}').status_code == 200
    keys.rotate()
    wait_until(accepts(stack, NEW), "the new key")
    for given, key in ((NEW, "current"), (f"{KEY}\n", "previous 1")):
        told = stack.jobhook("keys", "check", given=given)
        assert (told.returncode, f"This is the key `{key}`" in told.stdout) == (0, True)
    quoted = stack.jobhook("keys", "check", given=f'"{NEW}"')
    assert quoted.stdout.startswith("Not as it was given, but without the quotes around it, this is the key `current`")
    unknown = stack.jobhook("keys", "check", given="some-other-key-0123456789")
    assert unknown.returncode == 1
    assert unknown.stdout.startswith("Not a key that is configured here or remembered")

    keys.write(f"JOBSITEON_API_KEY={NEW}")
    wait_until(lambda: not accepts(stack, KEY)(), "the end of the old key")
    stack.redis.hincrby("jobhook:keys", f"{fingerprint(KEY.encode())}:held", -HOUR_MS)
    retired = stack.jobhook("keys", "check", given=KEY)
    assert retired.returncode == 0
    assert "This is a retired key" in retired.stdout
    assert ": retired on 2" in retired.stdout
    assert KEY not in retired.stdout + retired.stderr
    assert NEW not in stack.logs()


def test_the_record_of_an_event_names_the_key_that_verified_it(stack: Stack) -> None:
    stack.start_receiver()
    id = post(stack, KEY, b'{"id":"evt_1","type":"test.ok"}').json()["id"]
    assert stack.inbox.get(id).meta["fingerprint"] == fingerprint(KEY.encode())
    assert f"signed with the current key ({fingerprint(KEY.encode())})" in stack.jobhook("event", id).stdout
