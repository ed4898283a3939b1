"""Servers and workers under measurement: started on a core of their own, their CPU time read from /proc."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.embedded import free_port
from tests.support import wait_until
from tests.support.processes import clean_environment

KEY = "key-of-the-benchmark-0123"
MEASURED_CORE, OTHER_CORE = 0, 1
"""What is measured has a core to itself; Redis and the load share the other."""
ROOT = Path(__file__).parents[2]
PYTHON_M = (sys.executable, "-m")
_TICKS = os.sysconf("SC_CLK_TCK")


def pin_to_other_core() -> None:
    """Keeps this process, and what it starts, off the measured core."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {OTHER_CORE})


def environment(redis_url: str, **more: str) -> dict[str, str]:
    """Production settings, but for where things are."""
    settings = {
        "JOBSITEON_API_KEY": KEY,
        "REDIS_URL": redis_url,
        "JOBHOOK_LOG_FORMAT": "json",
        "JOBHOOK_ENV_FILE": os.devnull,
        "JOBHOOK_HANDLERS": "tests.benchmarks.handlers",
    }
    return clean_environment() | settings | more


@contextmanager
def running(command: Sequence[str], env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process on the measured core, stopped at the end. What it prints is thrown away."""
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {MEASURED_CORE})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serving(command: Sequence[str], env: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A web server on a free port; yields its pid and the port."""
    port = free_port()
    with running([*command, "--port", str(port)], env) as process:

        def answers() -> bool:
            assert process.poll() is None, f"{command} does not start"
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
            except httpx.HTTPError:
                return False
            return True

        wait_until(answers, " ".join(command))
        yield process.pid, port


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
