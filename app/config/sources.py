"""Where settings come from (environment, `.env`, secret files), and what is wrong with what stands there."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from app.config.settings import DURATION, PREFIX, SIZE, Settings
from app.errors import ConfigError
from app.units import format_duration, format_size

_PASSWORD = re.compile(r"(?<=//)[^/]*(?=@)|(?<=password=)[^&]*")
"""In a URL."""
_OWN_PREFIX = re.compile("^(JOBHOOK|JOBSITEON)_")


def variable(name: str) -> str:
    """The environment variable of a field of `Settings`."""
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else (PREFIX + name).upper()


ENV_FILE, SECRETS_DIR = PREFIX + "ENV_FILE", PREFIX + "SECRETS_DIR"
DEFAULT_SECRETS_DIR = "/run/secrets"
DEV = PREFIX + "DEV"
"""Set by `jobhook dev` for the processes that it starts: there, handlers meant for trying out are registered too."""


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (by field name) win over every source.

    Sources, the first wins: the environment, the file `.env` (or `$JOBHOOK_ENV_FILE`), the files in
    `/run/secrets` (or `$JOBHOOK_SECRETS_DIR`), where Docker and Kubernetes put secrets.

    Raises:
        ConfigError: a value is missing or wrong, or an unknown `JOBHOOK_` name is set.
    """
    env_file, secrets_dir = _sources()
    if problems := list(_unknown_names(configured_names())):
        raise ConfigError("\n".join(problems))
    try:
        return Settings(
            _env_file=env_file,
            _secrets_dir=secrets_dir,
            **overrides,
        )
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error))) from None


def configured_names() -> set[str]:
    """The names, in capitals, that any source gives a value to; not only Jobhook's."""
    env_file, secrets_dir = _sources()
    names = [*os.environ, *(dotenv_values(env_file) if env_file else ())]
    if secrets_dir:
        names += [path.name for path in secrets_dir.iterdir()]
    return {name.upper() for name in names}


def configured_values() -> dict[str, str]:
    """What the environment and the `.env` file set of the settings, as it stands there."""
    env_file, _ = _sources()
    values = (dotenv_values(env_file) if env_file else {}) | dict(os.environ)
    known = {variable(name) for name in Settings.model_fields}
    return {name: value for name, value in values.items() if name in known and value is not None}


def _sources() -> tuple[Path | None, Path | None]:
    """The `.env` file and the secrets folder, as far as they exist."""
    env_file = Path(os.environ.get(ENV_FILE, ".env"))
    secrets_dir = Path(os.environ.get(SECRETS_DIR, DEFAULT_SECRETS_DIR))
    return env_file if env_file.is_file() else None, secrets_dir if secrets_dir.is_dir() else None


def _unknown_names(names: Iterable[str]) -> Iterable[str]:
    known = {variable(name) for name in Settings.model_fields} | {ENV_FILE, SECRETS_DIR, DEV}
    for name in sorted(set(names) - known):
        if name.startswith(PREFIX):
            # By what follows the prefix: who writes JOBHOOK_API_KEY means JOBSITEON_API_KEY.
            by_tail = {_OWN_PREFIX.sub("", setting): setting for setting in sorted(known)}
            nearest = difflib.get_close_matches(_OWN_PREFIX.sub("", name), by_tail, n=1)
            yield f"{name}: no such setting." + (f" Did you mean {by_tail[nearest[0]]}?" if nearest else "")


def _problems(error: ValidationError) -> Iterable[str]:
    fields = {variable(name): name for name in Settings.model_fields}
    for problem in error.errors(include_input=False, include_url=False):
        message = problem["msg"].removeprefix("Value error, ")
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "missing":
            message = "is not set. It is required: " + (Settings.model_fields[fields[name]].description or "")
        yield f"{name if name in fields else variable(name)}: {message}" if name else message


def settings_rows(settings: Settings | None = None) -> Iterable[tuple[str, str, str]]:
    """Variable, value and meaning of each setting; the defaults if no settings are given."""
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name) if settings else field.default
        shown = "*required*" if value is PydanticUndefined else _shown(value, field.metadata)
        shown = _PASSWORD.sub("***", shown)
        yield variable(name), shown, field.description or ""


def settings_table() -> str:
    """The settings and their defaults as a Markdown table, for the README."""
    rows = [f"| `{name}` | {shown} | {meaning} |" for name, shown, meaning in settings_rows()]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


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
