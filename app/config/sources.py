"""Where settings come from (environment, `.env`, secret files, a manager of secrets), and what is wrong there."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.config.files import Entry, read_env_file, read_secret_files
from app.config.managers import read_manager
from app.config.names import (
    DEV,
    ENV_FILE,
    FIELDS,
    OWN_PREFIXES,
    REDIS_URL,
    SECRETS_DIR,
    SECRETS_MANAGER,
    complaint,
    is_known,
    is_like_redis_url,
    is_service_link,
    variable,
)
from app.config.settings import KEY_FIELDS, Settings
from app.errors import ConfigError

DEFAULT_ENV_FILE = ".env"
DEFAULT_SECRETS_DIR = "/run/secrets"
HERE = Path()
"""The current folder."""
ENVIRONMENT = "the environment"
RQ_PREFIX = "RQ_KEY_PREFIX"
"""Read by RQ, and by app/inbox/jobs.py as RQ does."""

_RQ_PREFIX_FORM = re.compile(r"[\w.:{}-]+", re.ASCII)
"""What RQ accepts; `rq.defaults` raises a bare ValueError on everything else."""
_CLEARER = {
    "bool_parsing": "Input should be true or false",
    "int_parsing": "Input should be a whole number, such as 2",
}
"""Texts for pydantic's types of errors."""


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` (by field name) win over every source.

    Sources, the first wins: the environment, the file `.env` (or `$JOBHOOK_ENV_FILE`), the files in
    `/run/secrets` (or `$JOBHOOK_SECRETS_DIR`), where Docker and Kubernetes put secrets, and the manager
    that `$JOBHOOK_SECRETS_MANAGER` names. What is set to nothing counts as not set.

    Raises:
        ConfigError: a value is missing or wrong, a source cannot be read to its end, or a name is none of a setting.
    """
    return _made(_find(), overrides)


@dataclass(frozen=True, slots=True)
class Sources:
    """What all sources say at one time, and where they are."""

    settings: Settings
    notes: list[str]
    """As of the function `notes`."""
    files: tuple[Path, ...]
    """What has been read, or looked for: the `.env` file, and the folder of secret files."""
    from_environment: frozenset[str]
    """Variables that the environment of the process sets, so that only a restart changes them."""


def read_sources(folder: Path = HERE) -> Sources:
    """The settings as `load_settings` reads them, with what is known of where they come from.

    Names of files that are relative are looked up in `folder`.

    Raises:
        ConfigError: as `load_settings`.
    """
    found = _find(folder)
    fixed = frozenset(name for name, entry in found.entries.items() if entry.place == ENVIRONMENT)
    return Sources(_made(found, {}), found.notes, found.files, fixed)


def places() -> dict[str, str]:
    """Where the value of each variable that has one stands: `the environment`, a file and a line, or a file.

    Raises:
        ConfigError: as `load_settings`.
    """
    return {name: entry.place for name, entry in _find().entries.items()}


def notes() -> list[str]:
    """What is ignored though it looks like a setting, a line each: to be said by what uses the settings.

    Raises:
        ConfigError: as `load_settings`.
    """
    return _find().notes


def configured_names() -> set[str]:
    """The variables that any source gives a value to.

    Raises:
        ConfigError: as `load_settings`.
    """
    return set(_find().entries)


def configured_values() -> dict[str, str]:
    """What the environment and the `.env` file set, without what stands in secret files or a manager of secrets.

    Raises:
        ConfigError: as `load_settings`.
    """
    found = _find()
    return {name: entry.text for name, entry in found.entries.items() if entry not in found.secret}


def override(name: str, text: str) -> None:
    """Sets a variable of this process and of those that it starts, in whatever case it has been set before."""
    for other in [other for other in os.environ if other.upper() == name]:
        del os.environ[other]
    os.environ[name] = text


@dataclass
class _Found:
    """What all sources together say."""

    entries: dict[str, Entry]
    """By variable; of several sources the first."""
    secret: list[Entry]
    key_is_empty: bool
    notes: list[str]
    files: tuple[Path, ...]


def _made(found: _Found, overrides: dict[str, Any]) -> Settings:
    values = {FIELDS[name]: entry.text for name, entry in found.entries.items()}
    if found.key_is_empty:
        values["api_key"] = ""
    try:
        return Settings(**(values | overrides))
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error, found.entries))) from None


def _find(folder: Path = HERE) -> _Found:
    problems: list[str] = []

    def read(source: Callable[[], list[Entry]]) -> list[Entry]:
        try:
            return source()
        except ConfigError as error:
            problems.append(str(error))
            return []

    environment, links = _environment()
    where = {entry.name.upper(): entry.text for entry in environment if entry.text.strip()}
    env_file = read(lambda: _env_file(where.get(ENV_FILE), folder))
    where = {entry.name.upper(): entry.text for entry in env_file if entry.text.strip()} | where
    files_of_secrets = read(lambda: _secret_files(where.get(SECRETS_DIR), folder))
    managed = read(lambda: _managed(where.get(SECRETS_MANAGER)))
    sources = [environment, env_file, files_of_secrets, managed]
    secret = [*files_of_secrets, *managed]
    everything = [*environment, *env_file, *secret]

    problems += sorted({problem + _where(entry) for entry in everything if (problem := complaint(entry.name))})
    problems += [problem for source in sources for problem in _contradictions(source)]
    problems += _misplaced(env_file, secret)
    problems += _unusable_rq_prefix(environment)
    if problems:
        raise ConfigError("\n".join(problems))

    given = [entry for entry in everything if entry.name.upper() in FIELDS]
    entries: dict[str, Entry] = {}
    for entry in given:
        if entry.text.strip():
            entries.setdefault(entry.name.upper(), entry)
    key = variable("api_key")
    key_is_empty = key not in entries and any(entry.name.upper() == key for entry in given)
    said = [*_about_links(links), *_about_redis(everything, entries), *_about_hidden_keys(given, entries)]
    files = (folder / where.get(ENV_FILE, DEFAULT_ENV_FILE), folder / where.get(SECRETS_DIR, DEFAULT_SECRETS_DIR))
    return _Found(entries, secret, key_is_empty, said, files)


def _environment() -> tuple[list[Entry], list[Entry]]:
    """What is set in the environment: by people, and by Kubernetes for its Services."""
    entries = [Entry(name, text, ENVIRONMENT) for name, text in os.environ.items()]
    links = [entry for entry in entries if is_service_link(entry.name, entry.text)]
    return [entry for entry in entries if entry not in links], links


def _env_file(named: str | None, folder: Path) -> list[Entry]:
    """An unnamed one may be missing. But if anything stands in its place, it has to be readable."""
    file = folder / (named or DEFAULT_ENV_FILE)
    if named is None:
        return read_env_file(file, os.environ) if os.path.lexists(file) else []
    return _named(ENV_FILE, lambda: read_env_file(file, os.environ))


def _secret_files(named: str | None, folder: Path) -> list[Entry]:
    files = folder / (named or DEFAULT_SECRETS_DIR)
    if named is None:
        return read_secret_files(files) if os.path.lexists(files) else []
    return _named(SECRETS_DIR, lambda: read_secret_files(files))


def _managed(where: str | None) -> list[Entry]:
    return _named(SECRETS_MANAGER, lambda: read_manager(where)) if where else []


def _named(name: str, read: Callable[[], list[Entry]]) -> list[Entry]:
    try:
        return read()
    except ConfigError as error:
        raise ConfigError("\n".join(f"{name}: {problem}" for problem in str(error).split("\n"))) from None


def _contradictions(source: Iterable[Entry]) -> Iterable[str]:
    """Names that one source gives two values to, be it in another case."""
    first: dict[str, Entry] = {}
    for entry in source:
        name = entry.name.upper()
        if is_known(name) and (other := first.setdefault(name, entry)).text != entry.text:
            places = [f"as {one.name} in {one.place}" for one in (other, entry)]
            yield f"{name}: has two values: {places[0]}, and {places[1]}. Remove one"


def _misplaced(env_file: list[Entry], secret: list[Entry]) -> Iterable[str]:
    """What has no effect where it stands, because it is looked up in the environment alone."""
    for entry in env_file:
        name = entry.name.upper()
        if name in {ENV_FILE, DEV} or (name == RQ_PREFIX and os.environ.get(RQ_PREFIX) != entry.text):
            yield f"{name}: {entry.place}: has no effect there: set it in the environment"
    for entry in secret:
        if entry.name.upper() in {ENV_FILE, SECRETS_DIR, SECRETS_MANAGER, DEV}:
            yield f"{entry.name.upper()}: {entry.place}: has no effect there: set it in the environment"


def _unusable_rq_prefix(environment: Iterable[Entry]) -> Iterable[str]:
    for entry in environment:
        if entry.name == RQ_PREFIX and not _RQ_PREFIX_FORM.fullmatch(entry.text):
            yield f"{RQ_PREFIX}: only letters, digits and _ . : - {{ }} are possible; unset it for `rq`"


def _about_links(links: list[Entry]) -> Iterable[str]:
    if names := ", ".join(sorted(entry.name for entry in links if entry.name.startswith(OWN_PREFIXES))):
        yield (
            f"ignored, because Kubernetes has set them for a Service and not you: {names}. "
            "To be rid of them, set enableServiceLinks: false in the pod"
        )


def _about_redis(everything: Iterable[Entry], entries: Iterable[str]) -> Iterable[str]:
    if REDIS_URL not in entries:
        for name in sorted(
            {entry.name for entry in everything if entry.text.strip() and is_like_redis_url(entry.name)}
        ):
            yield f"{name} is no setting of Jobhook, and {REDIS_URL} is not set: did you mean {REDIS_URL}?"


def _about_hidden_keys(given: Iterable[Entry], entries: dict[str, Entry]) -> Iterable[str]:
    """Who writes a new key into a file means it, and may have forgotten that another source goes before it."""
    for entry in given:
        name = entry.name.upper()
        used = entries.get(name)
        if FIELDS[name] in KEY_FIELDS and used and entry.text.strip() and entry.text != used.text:
            yield f"{name} of {entry.place} is not used: {used.place} says something else, and goes before it"


def _problems(error: ValidationError, entries: dict[str, Entry]) -> Iterable[str]:
    for problem in error.errors(include_input=False, include_url=False):
        message = _CLEARER.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if not name:
            yield message
            continue
        name = name if name in FIELDS else variable(name)
        if problem["type"] == "missing":
            message = "is not set. It is required: " + (Settings.model_fields[FIELDS[name]].description or "")
        yield f"{name}: {message}" + (_where(entries[name]) if name in entries else "")


def _where(entry: Entry) -> str:
    """For the end of a message. The environment is left out: that is where everybody looks first."""
    return "" if entry.place == ENVIRONMENT else f" ({entry.place})"
