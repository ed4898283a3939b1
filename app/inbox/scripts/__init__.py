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


def _read(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text("utf-8")


def _script(text: str, prefix: str = PREFIX, rq_prefix: str = RQ_PREFIX) -> Script:
    values = {"$PREFIX": prefix, "$RQ_PREFIX": rq_prefix, "$QUEUE": QUEUE}
    values |= {"$REAL_PREFIX": PREFIX, "$REAL_RQ_PREFIX": RQ_PREFIX}
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _load(name: str) -> Script:
    shebang, _, body = _read(name).partition("\n")
    return _script(f"{shebang}\n{_read('common')}\n{body}")


def _load_probe() -> Script:
    """The accept script, as it is, within the frame of a trial."""
    shebang, _, body = _read("accept").partition("\n")
    frame = _read("probe").replace("$COMMON", _read("common")).replace("$ACCEPT", body)
    return _script(f"{shebang}\n{frame}", PROBE_PREFIX, PROBE_RQ_PREFIX)


ACCEPT = _load("accept")
PROBE = _load_probe()
WORK = _load("work")
STEP = _load("step")
TURN = _load("turn")
SWEEP = _load("sweep")
RELEASE = _load("release")
REPLAY = _load("replay")
BEAT = _load("beat")
SET_ASIDE = _load("set_aside")
REJECT = _load("reject")
KEYS = _load("keys")
RESUME = _load("resume")
FIND = _load("find")
EMPTY = _load("empty")
ALERTS = _load("alerts")
