"""Which events are meant: one filter for the command line, the console and whatever else lists or changes events.

Pure. A filter is made of words, as a person gives them, and has the same words as the query of a URL. A record fits it
if it fits each of them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlencode

import orjson

from app.inbox.record import HANDLER_STEP, STEP, TRIES, Record, errors_of, handlers_in
from app.inbox.record import STATES as _STATES
from app.units import parse_duration

KEY_DIGITS: Final = re.compile(r"[0-9a-f]{4,}")
"""A key's fingerprint or its beginning; what is shorter, or has other letters, is a role."""
LONGEST_WORD: Final = 1000
"""Characters."""


class BadFilter(ValueError):
    """A word of a filter is not understood. `word` names it; the message says what it can be."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


@dataclass(frozen=True, slots=True)
class Filter:
    """The events that fit all of these. An empty one means all events."""

    state: tuple[str, ...] = ()
    """One of these."""
    type: str | None = None
    """A pattern, such as `invoice.*`; upper or lower case."""
    resource: str | None = None
    """`contact/con_1`, or the id alone."""
    handler: str | None = None
    """One that is at it, has failed, or whose success is recorded; of a destination, its URL will do.

    A handler that has finished an event at once, with no other left to run, leaves no trace in its record.
    """
    error: str | None = None
    """A pattern of the class of an error in its history: `ValueError`, `httpx.*`."""
    key: str | None = None
    """The role of the key that signed it, or its fingerprint's first digits."""
    conflict: bool = False
    """It has the event id of another, and says something else."""
    unhandled: bool = False
    """No handler wanted it."""
    since: str | None = None
    """Received from then on: so long ago (`2d`), or a time with its zone."""
    until: str | None = None
    """Received before then."""
    search: str | None = None
    """A text in its body, its ids, its errors or the results of its steps."""

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Self:
        """A filter from its words. Several states are a list, or have commas between them.

        Raises:
            BadFilter: one of them is not understood.
        """
        names = [field.name for field in fields(cls)]
        if unknown := [word for word in words if word not in names]:
            raise BadFilter(unknown[0], f"there is no such word: write one of {', '.join(names)}")
        given = {word: value for word, value in words.items() if value not in (None, False, (), [])}
        for word, value in given.items():
            given[word] = _READERS.get(word, _text)(word, value)
        return cls(**given)

    @classmethod
    def from_query(cls, query: str) -> Self:
        """The filter of a URL's query.

        Raises:
            BadFilter: a word in it is not understood, or is there twice.
        """
        words: dict[str, Any] = {}
        for word, value in parse_qsl(query, keep_blank_values=True):
            if word in words:
                raise BadFilter(word, "is there twice")
            words[word] = value
        return cls.of(words)

    def words(self) -> dict[str, Any]:
        """What is asked for, by name, in the order of the fields."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value not in (None, False, ())}

    def to_query(self) -> str:
        """The query of a URL; `from_query` reads it back."""
        return urlencode({name: _written(value) for name, value in self.words().items()}, errors="surrogateescape")

    def __str__(self) -> str:
        return " ".join(f"{name}={_written(value)}" for name, value in self.words().items()) or "all events"

    def between(self, now: float) -> tuple[float, float | None]:
        """The times from which on, and before which, events are meant: seconds since 1970. `now` is the server's."""
        since, until = (_moment("", text, now) if text else None for text in (self.since, self.until))
        return since or 0.0, until

    def fits(self, record: Record, now: float) -> bool:
        """Whether a record is of what is meant."""
        since, until = self.between(now)
        return (
            (not self.state or record.state in self.state)
            and record.received >= since
            and (until is None or record.received < until)
            and (self.type is None or fits_type(self.type, record.type))
            and (self.resource is None or self.resource in {record.resource, record.meta.get("resource")})
            and (self.key is None or self._fits_key(record))
            and (not self.conflict or record.conflict_of is not None)
            and (not self.unhandled or record.is_unhandled)
            and (self.error is None or any(fits_error(self.error, error) for error in classes_of(record)))
            and (self.handler is None or not {self.handler, f"forward {self.handler}"}.isdisjoint(handlers_of(record)))
            and (self.search is None or mentions(record, self.search))
        )

    def _fits_key(self, record: Record) -> bool:
        fingerprint = str(record.meta.get("fingerprint") or "")
        return self.key == record.meta.get("key") or bool(self.key and fingerprint.startswith(self.key))


def fits_type(pattern: str, type: str) -> bool:
    """Whether a type is one of those meant, whatever its case."""
    return fnmatchcase(type.casefold(), pattern.casefold())


def fits_error(pattern: str, error: str) -> bool:
    """Whether a class of errors is one of those meant: by its whole name, or the name without its module."""
    return fnmatchcase(error, pattern) or fnmatchcase(error.rpartition(".")[2], pattern)


def classes_of(record: Record) -> list[str]:
    """The classes of all errors in its history, each once."""
    return list(dict.fromkeys(str(error.get("type")) for entry in record.attempts for error in errors_of(entry)))


def handlers_of(record: Record) -> set[str]:
    """The handlers that its record tells of."""
    steps = (STEP + name for name, _ in record.steps)
    begun, _ = handlers_in([*steps, *(TRIES + name for name in record.tries)])
    failed = {str(error["handler"]) for entry in record.attempts for error in errors_of(entry) if error.get("handler")}
    return begun | failed | ({record.handler} if record.handler else set())


def mentions(record: Record, text: str) -> bool:
    """Whether a text is in its body (or the last other one that came), its ids, its errors, or the results of steps."""
    written = spellings(text)
    return any(spelling in said for said in _said(record) for spelling in written)


def _said(record: Record) -> Iterator[bytes]:
    yield record.body
    if record.rewritten_body:
        yield record.rewritten_body
    for name in (record.id, record.resource, record.meta.get("event_id")):
        if name:
            yield str(name).encode("utf-8", "surrogateescape")
    for entry in record.attempts:
        yield from (str(said).encode("utf-8", "replace") for error in errors_of(entry) for said in error.values())
    for tries in record.tries.values():
        yield tries.why.encode("utf-8", "replace")
    for name, result in record.steps:
        if not name.startswith(HANDLER_STEP):
            yield name.encode("utf-8", "replace")
            yield orjson.dumps(result)


def spellings(text: str) -> list[bytes]:
    """The forms in which a text may stand in a payload: as it is, and as JSON writes it, with and without escapes."""
    plain = text.encode("utf-8", "surrogateescape")
    quoted = [
        _in_json(text, ascii_only=ascii_only, slashes=slashes) for ascii_only in (False, True) for slashes in (0, 1)
    ]
    upper = [re.sub(rb"\\u([0-9a-f]{4})", lambda found: rb"\u" + found[1].upper(), one) for one in quoted]
    return list(dict.fromkeys([plain, *quoted, *upper]))


def _in_json(text: str, *, ascii_only: bool, slashes: int) -> bytes:
    written = json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "surrogateescape")
    return written.replace(b"/", rb"\/") if slashes else written


def _states(word: str, value: Any) -> tuple[str, ...]:
    given: Iterable[str] = value.split(",") if isinstance(value, str) else value
    names = [name.strip() for one in given for name in one.split(",")]
    for name in names:
        if name not in _STATES:
            raise BadFilter(word, f"{name!r} is none of {', '.join(_STATES)}")
    return tuple(dict.fromkeys(names))


def _text(word: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadFilter(word, "write something to look for")
    if len(value) > LONGEST_WORD:
        raise BadFilter(word, f"is longer than {LONGEST_WORD} characters")
    return value


def _key(word: str, value: Any) -> str:
    text = _text(word, value)
    return text.lower() if KEY_DIGITS.fullmatch(text.lower()) else text


def _flag(word: str, value: Any) -> bool:
    if value is True or str(value).lower() in {"1", "true", "yes", ""}:
        return True
    raise BadFilter(word, "is either there, or not: write 1, or leave it out")


def _time(word: str, value: Any) -> str:
    text = _text(word, value).strip()
    _moment(word, text, 0.0)
    return text


def _moment(word: str, text: str, now: float) -> float:
    """Seconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - float(parse_duration(text))
        except ValueError as error:
            example = ", or a time with its zone such as 2026-11-25T09:00:00Z"
            raise BadFilter(word, f"{error}{example}") from None
    if moment.tzinfo is None:
        raise BadFilter(
            word, f"{text} has no time zone: write {moment.isoformat(timespec='seconds')}Z for UTC, or +02:00"
        )
    return moment.timestamp()


def _written(value: str | bool | Sequence[str]) -> str:
    if isinstance(value, bool):
        return "1"
    return value if isinstance(value, str) else ",".join(value)


_READERS: Final = {
    "state": _states,
    "key": _key,
    "conflict": _flag,
    "unhandled": _flag,
    "since": _time,
    "until": _time,
}
