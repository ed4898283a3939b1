"""Recognises script calls in the bytes that a client sends to Redis, by the scripts' digests."""

import re
from collections.abc import Iterator

from app.inbox import scripts

_WORK = scripts.WORK.sha.encode()
_CALL = re.compile(
    rb"EVALSHA\r\n\$40\r\n(?:"
    + _WORK
    + rb"\r\n\$1\r\n0\r\n\$\d+\r\n\{[^{}]*([{}])|(?!"
    + _WORK
    + rb")([0-9a-f]{40})\r\n)"
)
"""The digest of a script. Of `work.lua` also its one argument, a JSON object, as far as the first brace inside: the
brace that closes it, if an event is only taken; the one that opens `ended`, if an attempt ends."""
_LONGEST_CALL = 512
"""Bytes of the longest match: what is kept of one chunk for the next."""

_NAMES = {
    scripts.ACCEPT: "accept",
    scripts.STEP: "step",
    scripts.TURN: "turn",
    scripts.SWEEP: "sweep",
    scripts.RELEASE: "release",
    scripts.REPLAY: "replay",
}
_BY_DIGEST = {script.sha: name for script, name in _NAMES.items()}
SCRIPTS = (*_NAMES, scripts.WORK)

CALLS = ("accept", "take", "finish", "step", "turn", "sweep", "release", "replay")
"""Every call of a script there is. `work.lua` has two: it takes an event, and it ends one and takes the next."""


class Recogniser:
    """Sees the calls in one direction of one connection, however the bytes are cut into chunks."""

    def __init__(self) -> None:
        self._tail = b""

    def calls(self, chunk: bytes) -> Iterator[str]:
        """The names of the calls that this chunk completes, as far as they have to be seen to be known."""
        seen = len(self._tail)
        window = self._tail + chunk
        self._tail = window[-_LONGEST_CALL:]
        for match in _CALL.finditer(window):
            if match.end() > seen:
                yield _name(match[1], match[2])


def _name(brace: bytes | None, sha: bytes) -> str:
    if brace:
        return "finish" if brace == b"{" else "take"
    return _BY_DIGEST.get(sha.decode(), "other")
