"""The settings as tables: what there is, what it is set to, and the page that documents it."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticUndefined

from app.config.names import variable
from app.config.settings import DURATION, SIZE, Settings
from app.units import format_duration, format_size

THEMES = {
    "Keys and signatures": ("api_key", "previous_api_keys", "signature_algorithm", "signature_encoding"),
    "Who may deliver": ("require_https", "trusted_proxies", "allowed_ips", "max_body_bytes"),
    "Redis, and what a 200 means": ("redis_url", "durability", "ack_budget", "dedupe_window", "retention"),
    "Work": ("handlers", "workers", "handler_timeout", "max_attempts"),
    "Forwarding": ("forward_urls", "forward_secret"),
    "JobsiteOn's API": (
        "api_url",
        "api_token",
        "api_timeout",
        "api_rate_limit",
        "api_rate_window",
        "api_plain_loopback",
    ),
    "Processes and logs": ("host", "port", "processes", "log_format", "log_level"),
}
"""Fields of `Settings`: each stands under one theme."""

_PASSWORD = re.compile(r"(?<=//)[^/]*(?=@)|(?<=password=)[^&]*")
"""In a URL."""
_INTRODUCTION = """\
# Settings

This page is made by `jobhook settings --markdown`. `jobhook settings` shows what is set, without secrets;
`jobhook doctor` says what is wrong.

A setting is looked for in three places, and the first that has it wins:

1. the environment;
2. the file `.env` in the current folder, or the one that `JOBHOOK_ENV_FILE` names;
3. files named like the settings in `/run/secrets`, or in the folder that `JOBHOOK_SECRETS_DIR` names.

Names may be written in either case. What is set to nothing (`JOBHOOK_PORT=`) counts as not set. A setting is used or
refused, never half ignored: an unknown `JOBHOOK_…` or `JOBSITEON_…` name, a line that cannot be read, a named file that
is missing, or two values for one name in one place stop the start with a line that says where and what to write.
`JOBHOOK_ENV_FILE=/dev/null` and `JOBHOOK_SECRETS_DIR=/dev/null` say that there is no such file or folder.

- **Durations** have a unit: `500ms`, `90s`, `1h30m`, `30d`. **Sizes** may have one: `1048576`, `500kB`, `1MiB`.
- **Lists** are separated by commas or white space.
- **In `.env`** a line is `NAME=value`, and `#` begins a comment. `${OTHER}` and `${OTHER:-default}` are replaced, but
  not between single quotes: put a key between them if it has a `$` or a `#` in it.
"""


def settings_rows(settings: Settings | None = None) -> Iterable[tuple[str, str, str]]:
    """Variable, value and meaning of each setting; the defaults if no settings are given."""
    for field, info in Settings.model_fields.items():
        value = getattr(settings, field) if settings else info.default
        shown = "*required*" if value is PydanticUndefined else _shown(value, info.metadata)
        shown = _PASSWORD.sub("***", shown)
        yield variable(field), shown, info.description or ""


def settings_table(fields: Iterable[str] | None = None) -> str:
    """Settings and their defaults as a Markdown table: all, or those of some fields."""
    wanted = {variable(name) for name in fields or Settings.model_fields}
    rows = [f"| `{name}` | {shown} | {meaning} |" for name, shown, meaning in settings_rows() if name in wanted]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def settings_page() -> str:
    """The page deploy/SETTINGS.md, in Markdown: every setting, by theme."""
    themes = [f"## {theme}\n\n{settings_table(fields)}\n" for theme, fields in THEMES.items()]
    return "\n".join([_INTRODUCTION, *themes])


def _shown(value: Any, metadata: list[Any]) -> str:
    if value is None:
        return "*none*"
    if isinstance(value, tuple):
        return ", ".join(_shown(part, []) for part in value) or "*none*"
    if isinstance(value, bool):
        return str(value).lower()
    if DURATION in metadata:
        return format_duration(value)
    return format_size(value) if SIZE in metadata else str(value)
