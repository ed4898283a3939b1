"""A process that does not outlive the one that started it.

Killed with -9, a `jobhook serve` cannot stop its receiver processes. They would go on answering on the port, with
keys that may have been taken out since, and the next `jobhook serve` could not have the port.
"""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess

import structlog

LONGEST_STOP_SECONDS = 15.0
"""For what is in hand: longer than uvicorn takes in good order, `SHUTDOWN_SECONDS` of app/cli/run.py."""

log = structlog.stdlib.get_logger(__name__)


def end_with_parent() -> None:
    """From here on, this process stops in good order when its parent is gone. Only for children of multiprocessing.

    They hold the end of a pipe that only the parent can write to. It closes when the parent ends, however it ends,
    and stays closed: a parent that went before this was called is missed all the same.
    """
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_after, args=(parent,), name="watch of the parent", daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    log.error("the parent process is gone: stopping", pid=os.getpid(), parent=parent.pid)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LONGEST_STOP_SECONDS)
    os._exit(1)
