"""The Lua scripts: every change of an event's state is one of them, and so atomic."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from app.inbox.jobs import QUEUE, RQ_PREFIX

PREFIX = "jobhook:"
PROBE_PREFIX, PROBE_RQ_PREFIX = f"{PREFIX}probe:", f"{RQ_PREFIX}:jobhook-probe"
"""Where a delivery on trial is recorded: under the same prefixes, so that who may not write there is found out."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the digest by which a server knows it."""

    text: str
    sha: str


def _load(name: str, prefix: str = PREFIX, rq_prefix: str = RQ_PREFIX) -> Script:
    folder = files(__package__)
    shebang, _, body = folder.joinpath(f"{name}.lua").read_text("utf-8").partition("\n")
    common = folder.joinpath("common.lua").read_text("utf-8")
    for placeholder, value in (("$PREFIX", prefix), ("$RQ_PREFIX", rq_prefix), ("$QUEUE", QUEUE)):
        common = common.replace(placeholder, value)
    text = f"{shebang}\n{common}\n{body}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ACCEPT = _load("accept")
PROBE = _load("accept", PROBE_PREFIX, PROBE_RQ_PREFIX)
"""The same script, for a delivery on trial."""
WORK = _load("work")
STEP = _load("step")
TURN = _load("turn")
SWEEP = _load("sweep")
RELEASE = _load("release")
REPLAY = _load("replay")
BEAT = _load("beat")
