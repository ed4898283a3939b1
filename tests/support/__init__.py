"""What the tests share: real servers and processes, handlers to run, and waiting for conditions."""

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a condition may take on a busy machine; nothing is measured by it."""
_POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], T], what: str = "the condition", patience: float = PATIENCE_SECONDS) -> T:
    """The first true value of `condition`."""
    deadline = time.monotonic() + patience
    pause = time.sleep  # the only place in the tests that may
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        pause(_POLL_SECONDS)
    return value


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects that a command has printed, one a line."""
    return [json.loads(line) for line in text.splitlines()]
