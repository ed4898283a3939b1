"""P6, P9: whatever standard output does, what is printed and logged neither blocks nor fails. Real processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.ops.streams import MOST_WAITING_BYTES
from tests.support import wait_until
from tests.support.stack import KEY, ROOT

Start = Callable[..., "subprocess.Popen[bytes]"]

BEGIN = """
import logging, os, sys, structlog, pydantic
from app.config.settings import Settings
from app.ops import logs, streams
logs.configure(Settings(api_key=pydantic.SecretStr(os.environ["KEY"]), log_format=os.environ.get("FORMAT", "json")))
def mark(name): open(os.environ["MARKS"] + "/" + name, "w").close()
log = structlog.get_logger()
"""
LINE = "x" * 99
MORE_THAN_FITS = 2 * MOST_WAITING_BYTES // (len(LINE) + 1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program that logs, with its standard output and error wherever the test says."""
    started: list[subprocess.Popen[bytes]] = []

    def run(program: str, *command: str, stdout: Any = subprocess.PIPE, stderr: Any = None, **environment: str) -> Any:
        process = subprocess.Popen(
            [*command, sys.executable, "-c", BEGIN + program],
            cwd=ROOT,
            env=os.environ | {"KEY": KEY, "MARKS": str(tmp_path)} | environment,
            stdout=stdout,
            stderr=subprocess.STDOUT if stderr is None else stderr,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def marked(folder: Path, name: str) -> None:
    wait_until((folder / name).exists, f"the program to get to {name!r}")


def output(process: "subprocess.Popen[bytes]") -> list[str]:
    return process.communicate(timeout=60)[0].decode().splitlines()


def dropped(lines: list[str]) -> int:
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return sum(entry["lines"] for entry in told if entry["event"] == "log lines dropped")


def test_a_reader_that_stalls_stops_nobody_and_is_told_what_it_missed(start: Start, tmp_path: Path) -> None:
    process = start(
        f"""
for n in range({MORE_THAN_FITS}): print({LINE!r})
assert streams.untold() == streams.dropped() > 0
mark("all printed")
sys.stdin.readline()
"""
    )
    marked(tmp_path, "all printed")
    lines = output(process)
    assert process.returncode == 0
    assert lines.count(LINE) + dropped(lines) == MORE_THAN_FITS
    assert dropped(lines) > 0


def test_a_stalled_reader_of_the_error_output_stops_nobody_either(start: Start, tmp_path: Path) -> None:
    start(
        f"""
for n in range({MORE_THAN_FITS}): print({LINE!r}, file=sys.stderr)
mark("all printed")
""",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    marked(tmp_path, "all printed")


def test_a_process_ends_although_its_reader_stalls(start: Start) -> None:
    assert start(f"for n in range({MORE_THAN_FITS}): log.info({LINE!r})").wait(60) == 0


WAYS_TO_PRINT = r"""
print("printed \xe9 \udc80", flush=True)
sys.stdout.write("written\n")
sys.stdout.buffer.write(b"bytes\n")
log.info("logged \xe9", name="\udc80")
logging.getLogger("foreign").warning("logged too")
print("to stderr \xe9", file=sys.stderr)
sys.stdout.close()
print("after a close")
mark("all printed")
"""


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_full_disk_is_no_reason_to_fail(format: str, start: Start, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert start(WAYS_TO_PRINT, stdout=full, FORMAT=format).wait(60) == 0
    marked(tmp_path, "all printed")


@pytest.mark.parametrize("format", ["json", "console"])
def test_outputs_closed_from_the_beginning_are_no_reason_to_fail(format: str, start: Start, tmp_path: Path) -> None:
    closing = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    program = WAYS_TO_PRINT + 'assert streams.dropped() == 7, streams.dropped()\nmark("all counted")'
    assert start(program, *closing, FORMAT=format).wait(60) == 0
    marked(tmp_path, "all counted")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_reader_that_has_gone_is_no_reason_to_fail(format: str, start: Start, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(WAYS_TO_PRINT, stdout=writer, FORMAT=format)
    os.close(writer)
    assert process.wait(60) == 0
    marked(tmp_path, "all printed")


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
@pytest.mark.parametrize("format", ["json", "console"])
def test_an_output_that_takes_ascii_only_gets_everything(format: str, variables: dict[str, str], start: Start) -> None:
    process = start(WAYS_TO_PRINT, FORMAT=format, **variables)
    lines = output(process)
    assert process.returncode == 0
    assert {"written", "bytes", "after a close"} <= set(lines)
    if format == "json":
        assert [json.loads(line)["event"] for line in lines if line[0] == "{"] == ["logged é", "logged too"]
        assert r"printed é \udc80" in lines


def test_somebody_elses_non_blocking_mode_costs_no_line(start: Start) -> None:
    """Node.js and others set it on a pipe that they share."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    number = 2000
    process = start(f"for n in range({number}): print({LINE!r})", stdout=writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert sum(line == LINE + "\n" for line in lines) == number
    assert process.wait(60) == 0


def test_where_it_can_be_written_again_a_line_begins_anew_and_the_missing_are_counted(
    start: Start, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    process = start(
        """
import time
while not streams.dropped(): log.info("before", text="x" * 200); time.sleep(0.001)
mark("dropped")
while not os.path.exists(os.environ["MARKS"] + "/open again"): time.sleep(0.01)
log.info("after")
""",
        stdout=writer,
    )
    os.close(writer)
    os.set_blocking(reader, True)
    first = os.read(reader, 2**20)
    os.close(reader)  # the last reader: writing fails from now on
    marked(tmp_path, "dropped")
    reader = os.open(fifo, os.O_RDONLY)
    (tmp_path / "open again").touch()
    with os.fdopen(reader) as again:
        lines = again.read().splitlines()
    assert process.wait(60) == 0
    assert first.startswith(b"{")
    events = [json.loads(line)["event"] for line in lines if line]
    assert "log lines dropped" in events
    assert "after" in events


def test_a_fork_writes_its_own_lines_and_only_those(start: Start) -> None:
    """With multiprocessing, as the supervisor forks its workers, and with os.fork. Their ends wait for the writing."""
    program = """
import multiprocessing
fork = multiprocessing.get_context("fork")
def child(n): print("child", n, flush=True); raise SystemExit(0 if n else 3)
def failing(): raise KeyError("seen")
def main():
    log.info("parent before")
    children = [fork.Process(target=child, args=(n,)) for n in range(20)] + [fork.Process(target=failing)]
    for started in children: started.start()
    for started in children: started.join()
    if os.fork() == 0:
        print("bare fork")
        raise SystemExit
    os.wait()
    log.info("parent after")
main()
"""
    lines = output(start(program))
    assert sorted(line for line in lines if line.startswith("child")) == sorted(f"child {n}" for n in range(20))
    assert [json.loads(line)["event"] for line in lines if line[0] == "{"] == ["parent before", "parent after"]
    assert lines.count("bare fork") == lines.count("KeyError: 'seen'") == 1


def test_an_error_that_nobody_has_caught_is_still_seen(start: Start) -> None:
    process = start("raise KeyError('seen')")
    assert output(process)[-1] == "KeyError: 'seen'"
    assert process.returncode == 1


def test_a_signal_handler_may_print_in_the_middle_of_printing(start: Start) -> None:
    process = start(
        f"""
import signal
signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
for n in range(20_000): print({LINE!r})
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    )
    text = "".join(output(process))
    assert process.returncode == 0
    assert text.count("x") == 20_000 * len(LINE)


def test_whoever_is_killed_loses_little(start: Start) -> None:
    process = start("print('long ago'); import time; time.sleep(600)")
    assert process.stdout
    assert process.stdout.readline() == b"long ago\n"
    process.send_signal(signal.SIGKILL)
