"""Recognises script calls in the bytes that a client sends to Redis, by the scripts' digests."""

import re
from collections.abc import Iterator

from app.inbox import scripts

_TAKE_ARGUMENTS = 7
"""EVALSHA, digest, 0, worker, lease, retention, want; a call that ends an attempt has more."""

_CALL = re.compile(rb"\*(\d+)\r\n\$7\r\nEVALSHA\r\n\$40\r\n([0-9a-f]{40})\r\n")
_LONGEST_CALL = 80
"""Bytes of the longest match: what is kept of one chunk for the next."""

_NAMES = {
    scripts.ACCEPT: "accept",
    scripts.WORK: "work",
    scripts.STEP: "step",
    scripts.TURN: "turn",
    scripts.SWEEP: "sweep",
    scripts.RELEASE: "release",
    scripts.REPLAY: "replay",
}
_BY_DIGEST = {script.sha: name for script, name in _NAMES.items()}
SCRIPTS = tuple(_NAMES)

CALLS = ("accept", "take", "finish", "step", "turn", "sweep", "release", "replay")
"""Every call of a script there is. `work.lua` has two: it takes an event, and it ends one and takes the next."""


class Recogniser:
    """Sees the calls in one direction of one connection, however the bytes are cut into chunks."""

    def __init__(self) -> None:
        self._tail = b""

    def calls(self, chunk: bytes) -> Iterator[str]:
        """The names of the calls whose digest ends in this chunk."""
        seen = len(self._tail)
        window = self._tail + chunk
        self._tail = window[-_LONGEST_CALL:]
        for match in _CALL.finditer(window):
            if match.end() > seen:
                yield _name(int(match[1]), match[2].decode())


def _name(arguments: int, sha: str) -> str:
    name = _BY_DIGEST.get(sha, "other")
    if name == "work":
        return "take" if arguments == _TAKE_ARGUMENTS else "finish"
    return name
