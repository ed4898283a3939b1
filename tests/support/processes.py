"""The processes of this machine, as far as the tests have to look at them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OUR_VARIABLES = ("JOBHOOK_", "JOBSITEON_", "REDIS_URL")


def clean_environment() -> dict[str, str]:
    """The variables of this process without Jobhook's own: what is set where the tests run has no influence."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}


def children(pid: int) -> list[int]:
    """The process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> Iterator[int]:
    """A process and its descendants, the topmost first; those that end meanwhile are left out."""
    yield pid
    with contextlib.suppress(OSError):
        for child in children(pid):
            yield from family(child)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stops a process as a debugger or a starved machine would."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
