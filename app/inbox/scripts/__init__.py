"""The Lua scripts: every change of an event's state is one of them, and so atomic."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from app.inbox.jobs import QUEUE, RQ_PREFIX


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the digest by which a server knows it."""

    text: str
    sha: str


def _load(name: str) -> Script:
    folder = files(__package__)
    shebang, _, body = folder.joinpath(f"{name}.lua").read_text("utf-8").partition("\n")
    common = folder.joinpath("common.lua").read_text("utf-8")
    common = common.replace("$RQ_PREFIX", RQ_PREFIX).replace("$QUEUE", QUEUE)
    text = f"{shebang}\n{common}\n{body}"
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ACCEPT = _load("accept")
WORK = _load("work")
STEP = _load("step")
TURN = _load("turn")
SWEEP = _load("sweep")
RELEASE = _load("release")
REPLAY = _load("replay")
SET_ASIDE = _load("set_aside")
