"""Handlers are imported in the process that runs them: what libraries do at import works as in a script (P5)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.processes import children
from tests.support.stack import ROOT, MakeStack, Stack

ECHO = """
import os

from redis import Redis
from workers import on

redis = Redis.from_url(os.environ["REDIS_URL"])  # one for the module, as many do it
redis.ping()


@on("test.*")
def ask(event):
    answer = redis.echo(event.id).decode()
    redis.hincrby("answers", "right" if answer == event.id else "wrong")
"""
LIBRARIES = """
import asyncio, atexit, multiprocessing, os, queue, signal, threading

from redis import Redis
from workers import on

redis = Redis.from_url(os.environ["REDIS_URL"])
work, answers = queue.Queue(), queue.Queue()
loop = asyncio.new_event_loop()
pool = multiprocessing.get_context("spawn").Pool(1)
signals = []


def run():
    while True:
        answers.put(work.get() * 2)


threading.Thread(target=run, daemon=True).start()
signal.signal(signal.SIGUSR1, lambda *_: signals.append("SIGUSR1"))


@atexit.register
def say():
    pool.terminate()
    redis.set(f"atexit:{os.getpid()}", 1)


@on("test.*")
def use(event):
    work.put(21)
    os.kill(os.getpid(), signal.SIGUSR1)
    looped = loop.run_until_complete(asyncio.sleep(0, "loop"))
    redis.set("found", repr([answers.get(timeout=10), looped, pool.apply(abs, (-1,)), *signals]))
    redis.set("pid", os.getpid())
"""


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path) -> Stack:
    """Nothing runs but the server; modules in `tmp_path` can be imported."""
    return make_stack(server.url, PYTHONPATH=str(tmp_path))


def test_a_connection_of_a_module_is_one_workers_own(stack: Stack, tmp_path: Path) -> None:
    """P5: shared by several, it would give each the answers of others."""
    (tmp_path / "echoing.py").write_text(ECHO)
    stack.start_workers(4, JOBHOOK_HANDLERS="echoing")
    ids = queue_events(stack.settings, 500)
    for id in ids:
        stack.wait_for(id, "done")
    assert stack.redis.hgetall("answers") == {b"right": b"500"}


def test_threads_loops_processes_signals_and_exit_functions_work(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "libraries.py").write_text(LIBRARIES)
    supervisor = stack.start_workers(JOBHOOK_HANDLERS="libraries")
    (id,) = queue_events(stack.settings, 1)
    stack.wait_for(id, "done")
    assert stack.redis.get("found") == b"[42, 'loop', 1, 'SIGUSR1']"
    pid = int(stack.redis.get("pid") or 0)
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    assert stack.redis.exists(f"atexit:{pid}")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import no_such_library", "JOBHOOK_HANDLERS: broken cannot be imported: ModuleNotFoundError"),
        ("import sys; sys.exit()", "JOBHOOK_HANDLERS: broken cannot be imported: SystemExit"),
        ("import os; os._exit(0)", "a process that was to import broken ended with exit code 0"),
        ("import os; os._exit(2)", "a process that was to import broken ended with exit code 2"),
        ("import os; os.abort()", "a process that was to import broken ended with SIGABRT"),
    ],
)
def test_what_cannot_be_imported_stops_the_start(stack: Stack, tmp_path: Path, code: str, says: str) -> None:
    """P9: in one line, and once."""
    (tmp_path / "broken.py").write_text(code)
    process = stack.start("broken", "workers", JOBHOOK_HANDLERS="broken")
    assert process.wait(30) == 2
    assert stack.log_file("broken").read_text().count(says) == 1


def test_a_module_that_is_broken_while_workers_run_stops_none_of_them(stack: Stack, tmp_path: Path) -> None:
    """P9: those that start anew are tried again, with a pause, until it is mended."""
    module = tmp_path / "edited.py"
    module.write_text("from workers import on\n\n@on('*')\ndef handle(event): ...\n")
    supervisor = stack.start_workers(2, JOBHOOK_HANDLERS="edited")
    first, second = children(supervisor.pid)
    module.write_text("import no_such_library  # and longer than before")
    os.kill(first, 9)
    wait_until(lambda: any(line["reason"] == "exit code 2" for line in stack.log_lines("worker died")), "the failure")
    assert second in children(supervisor.pid)
    (id,) = queue_events(stack.settings, 1)
    stack.wait_for(id, "done")
    module.write_text("from workers import on\n\n@on('*')\ndef handle_again(event): ...\n")
    wait_until(lambda: stack.redis.scard("rq:workers") == 2, "the second worker")


def test_a_stop_ends_an_import_that_does_not_end(stack: Stack, tmp_path: Path) -> None:
    """P9."""
    (tmp_path / "endless.py").write_text("import time; time.sleep(3600)")
    process = stack.start("endless", "workers", JOBHOOK_HANDLERS="endless")
    wait_until(lambda: children(process.pid), "the import to begin")
    process.terminate()
    assert process.wait(20) == 0


FOREIGN = "raise SystemExit('somebody else')"


@pytest.mark.parametrize("name", ["workers", "app"])
@pytest.mark.parametrize("on_path", [False, True])
def test_work_starts_our_workers_from_any_folder(stack: Stack, tmp_path: Path, name: str, on_path: bool) -> None:
    """Also from one that has packages of our names; handlers beside them are found."""
    folder = tmp_path / "project"
    for package in ("workers", "app"):
        (folder / package).mkdir(parents=True)
        if package == name:
            for file in ("__init__.py", "__main__.py", "supervisor.py"):
                (folder / package / file).write_text(FOREIGN)
    (folder / "mine.py").write_text("from workers import on\n\n@on('*')\ndef handle(event): ...\n")
    environment = stack.environment | {"JOBHOOK_HANDLERS": "mine", "PYTHONPATH": str(folder) if on_path else ""}
    command = [str(Path(sys.executable).with_name("jobhook")), "work"]
    if on_path:  # where even the command would be another's
        command = [sys.executable, "-P", str(ROOT / "workers" / "__main__.py")]
    with stack.log_file("work").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    stack.processes.append(process)
    (id,) = queue_events(stack.settings, 1)
    record = stack.wait_for(id, "done")
    assert [entry["handlers"] for entry in record.attempts] == [1]
