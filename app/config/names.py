"""The names that settings have, and those that are close to one without being one."""

import difflib
import re

from app.config.settings import PREFIX, Settings

ENV_FILE, SECRETS_DIR = PREFIX + "ENV_FILE", PREFIX + "SECRETS_DIR"
SECRETS_MANAGER = PREFIX + "SECRETS_MANAGER"
"""Where else settings are, in one of the forms of app/config/managers.py."""
DEV = PREFIX + "DEV"
"""Set by `jobhook dev` for the processes that it starts: there, handlers meant for trying out are registered too."""
METRICS_FOLDER = PREFIX + "METRICS_FOLDER"
"""Set by `jobhook serve` for its receiver processes: where they add up their metrics."""
OWN_PREFIXES = (PREFIX, "JOBSITEON_")
"""Whatever begins like this is meant for Jobhook."""
REDIS_URL = "REDIS_URL"

_TYPING_ERROR_RATIO = 0.9
"""How alike a name has to be to a setting's for its *prefix* to be taken for misspelt: one letter in ten."""
_LIKE_REDIS_URL = re.compile(
    r"REDIS_?(URIS?|URLS|URL_|URL|DSN|ADDR|ADDRESS|HOST|HOSTNAME|SERVER|TLS_URL|CONNECTION\w*)"
)
_SERVICE_LINK = re.compile(
    r"""\w+_(?:
        SERVICE_HOST=[\da-fA-F:.]+
        | SERVICE_PORT(?:_\w+)?=\d+
        | PORT(?:_\d+_(?:TCP|UDP|SCTP))?=(?:tcp|udp|sctp)://\S+
        | PORT_\d+_(?:TCP|UDP|SCTP)_(?:PROTO=(?:tcp|udp|sctp)|PORT=\d+|ADDR=[\da-fA-F:.]+)
    )""",
    re.VERBOSE | re.ASCII,
)


def variable(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else (PREFIX + field).upper()


FIELDS = {variable(field): field for field in Settings.model_fields}
"""The field of each variable."""
_KNOWN = {*FIELDS, ENV_FILE, SECRETS_DIR, SECRETS_MANAGER, DEV, METRICS_FOLDER}


def is_known(name: str) -> bool:
    """Whether there is a setting of this name; its case does not matter."""
    return name.upper() in _KNOWN


def complaint(name: str) -> str | None:
    """What is wrong with a name that seems to be meant for Jobhook; None if nothing is, or if it is another's."""
    if is_known(name):
        return None
    # With JOBHOOK-PORT, "JOBHOOK_PORT" and an invisible character in front, JOBHOOK_PORT is meant.
    written = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    if written in _KNOWN:
        meant: str | None = written
    elif written.startswith(OWN_PREFIXES):
        meant = _nearest(written)
    elif (meant := _with_misspelt_prefix(written)) is None:
        return None
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in name.upper())
    return f"{shown}: no such setting." + (f" Did you mean {meant}?" if meant else "")


def _nearest(written: str) -> str | None:
    """Compares what follows the prefix: who writes JOBHOOK_API_KEY means JOBSITEON_API_KEY."""
    tails = {_tail(known): known for known in sorted(_KNOWN)}
    close = difflib.get_close_matches(_tail(written), tails, n=1)
    return tails[close[0]] if close else None


def _tail(name: str) -> str:
    return next((name.removeprefix(own) for own in OWN_PREFIXES if name.startswith(own)), name)


def _with_misspelt_prefix(written: str) -> str | None:
    """As in JOBHOK_PORT or JOB_HOOK_PORT."""
    if not written.startswith(OWN_PREFIXES[0][0]):  # comparing is slow, and an environment may be large
        return None
    own = {known.replace("_", ""): known for known in sorted(_KNOWN) if known.startswith(OWN_PREFIXES)}
    close = difflib.get_close_matches(written.replace("_", ""), own, n=1, cutoff=_TYPING_ERROR_RATIO)
    return own[close[0]] if close else None


def is_like_redis_url(name: str) -> bool:
    """Whether somebody who sets this may have meant REDIS_URL; it may as well belong to another program."""
    return name.upper() != REDIS_URL and _LIKE_REDIS_URL.fullmatch(name.upper()) is not None


def is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes has set this for a Service, such as `JOBHOOK_PORT=tcp://10.0.0.7:80` for one named `jobhook`.

    It sets seven such variables a Service and port, in every pod of the namespace
    (kubernetes.io/docs/concepts/services-networking/service).
    """
    return _SERVICE_LINK.fullmatch(f"{name}={text}") is not None
