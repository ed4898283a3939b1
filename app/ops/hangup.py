"""SIGHUP: to a service it means "read your configuration again", on a terminal that the terminal has gone."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable


def is_of_a_terminal() -> bool:
    """Whether this process was started on a terminal: there a SIGHUP keeps its first meaning, and ends it."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def ignore_until_ready() -> None:
    """Keeps a SIGHUP from ending a process that has no handler for it yet: it is about to read its settings anyway."""
    if not is_of_a_terminal():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def on_hangup(*acts: Callable[[], None]) -> None:
    """Has the event loop that runs do these when a SIGHUP comes, unless that is the terminal's.

    A process under another one is told by that one what a SIGHUP means.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are another's
        return
    if multiprocessing.parent_process() is None and is_of_a_terminal():
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, lambda: [act() for act in acts])
