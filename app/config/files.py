"""Settings in files, an `.env` file and a folder of secret files: read whole, or refused with the place and the reason.

python-dotenv leaves out lines that it cannot read, and pydantic-settings leaves out files. Either may be the
allow-list, so nothing is left out here.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

from app.config.names import is_known
from app.errors import ConfigError

NO_FILE = Path(os.devnull)
"""Named as the file or the folder, it says that there is none."""

_SINGLE_QUOTED = re.compile(r"[^=]*=\s*'")
_QUOTED = re.compile(r"[^=]*=\s*[\"']")
_NAME_WITH_COLON = re.compile(r"(?:export\s+)?[\w.-]+\s*:")
_SWALLOWED = re.compile(r"(?im)\n\s*(?:export\s+)?(?:JOBHOOK_\w+|JOBSITEON_\w+|REDIS_URL)\s*=")


@dataclass(frozen=True, slots=True)
class Entry:
    """A name, the text that it is given, and where."""

    name: str
    text: str = field(repr=False)
    place: str


def read_env_file(file: Path, environment: Mapping[str, str]) -> list[Entry]:
    """The lines `NAME=value` of a file, with `${OTHER}` replaced by what the file above or the environment says.

    As in a shell, nothing is replaced between single quotes.

    Raises:
        ConfigError: the file or a line of it cannot be read; one line of message for each.
    """
    text = _text(file, _bytes(file))
    entries: list[Entry] = []
    problems: list[str] = []
    values = dict(environment)
    for binding in parse_stream(StringIO(text)):
        place = f"{file}, line {_first_line(binding)}"
        if problem := _unreadable(binding):
            problems.append(f"{place}: {problem}")
        elif binding.key is not None:
            value = _replaced(binding, values)
            if value is not None:
                values[binding.key] = value
                entries.append(Entry(binding.key, value, place))
            elif is_known(binding.key):
                problems.append(
                    f"{place}: {binding.key} has a ${{…}} that names nothing: "
                    "set what it names, or put the value between single quotes if it is meant as it is"
                )
    if problems:
        raise ConfigError("\n".join(problems))
    return entries


def read_secret_files(folder: Path) -> list[Entry]:
    """What is in the files of a folder that are named like settings, without white space around it.

    Files of other names are listed with an empty text and not opened. Hidden ones are left out: in a folder
    that Kubernetes has mounted they are how it exchanges the visible ones.

    Raises:
        ConfigError: the folder, or a file that is named like a setting, cannot be read.
    """
    if folder == NO_FILE:
        return []
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{folder}: {_reason(error, 'folder')}") from None
    return list(_collected(files, _secret))


def _collected(files: Iterable[Path], read: Callable[[Path], Entry]) -> Iterator[Entry]:
    """What can be read of each; the problems of all together."""
    problems: list[str] = []
    for file in files:
        try:
            yield read(file)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def _secret(file: Path) -> Entry:
    text = _text(file, _bytes(file)).strip() if is_known(file.name) else ""
    return Entry(file.name, text, str(file))


def env_line(name: str, text: str) -> str:
    """The line of an `.env` file that is read back as this text."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{escaped}'\n"


def _bytes(file: Path) -> bytes:
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(
                f"{file}: is a folder, not a file. Docker makes one where a file to be mounted is missing"
            )
        if not stat.S_ISREG(mode) and file != NO_FILE:  # a named pipe might keep us waiting for ever
            raise ConfigError(f"{file}: is neither a regular file nor {NO_FILE}")
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {_reason(error, 'file')}") from None


def _reason(error: OSError, kind: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no such {kind}; {NO_FILE} says that none is meant"
    if isinstance(error, NotADirectoryError) and kind == "folder":
        return "is a file, not a folder"
    return f"cannot be read ({error.strerror})"


def _text(file: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{file}: is UTF-16: save it as UTF-8")
    try:
        text = content.decode()
        wrong = content.find(b"\0")
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = content.count(b"\n", 0, wrong) + 1
        raise ConfigError(f"{file}, line {line}: is not text in UTF-8: save the file as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _first_line(binding: Binding) -> int:
    """The parser counts from the blank lines before it."""
    string = binding.original.string
    return binding.original.line + string[: len(string) - len(string.lstrip())].count("\n")


def _unreadable(binding: Binding) -> str | None:
    line = binding.original.string.lstrip()
    if binding.error and _QUOTED.match(line):
        return "a quote is not closed, or something follows it"
    if binding.value is None and _NAME_WITH_COLON.match(line) and not line.startswith("#"):
        return "write NAME=value, with a = instead of the colon"
    if binding.error or (binding.key is not None and binding.value is None):
        return "write NAME=value, or # in front of a comment"
    if binding.value and _SWALLOWED.search(binding.value):
        return "the quote that begins here ends on a later line, with another setting in between: close it"
    return None


def _replaced(binding: Binding, values: Mapping[str, str]) -> str | None:
    """The value, with each `${NAME}` and `${NAME:-default}` in it replaced; None if one names nothing."""
    text = binding.value or ""
    if _SINGLE_QUOTED.match(binding.original.string.lstrip()):
        return text
    parts = list(parse_variables(text))
    if any(isinstance(part, Variable) and part.default is None and part.name not in values for part in parts):
        return None
    return "".join(part.resolve(values) for part in parts)
