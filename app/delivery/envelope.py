"""From the JSON value of a delivery to what is known of the event in it: pure, and it never fails (P8).

What a JobsiteOn payload looks like is not documented, so the paths below are those of 41 surveyed
envelopes of other providers, in the order in which they are tried. A path that is configured comes first.
Whatever cannot be read is left out; the raw body is always kept.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

from app.delivery.moment import read_moment
from app.delivery.payload import data_of, parse

UNKNOWN_TYPE = "unknown"
ENTITIES = ("contact", "property", "job", "invoice", "payment", "pricebook", "quote")

Path = tuple[str, ...]
T = TypeVar("T")


def _paths(*dotted: str) -> tuple[Path, ...]:
    return tuple(tuple(path.split(".")) for path in dotted)


_EVENT_ID_PATHS = _paths("event_id", "event.id", "eventId", "event.eventId")
_FORMER_TYPE_PATHS = _paths("type", "event", "event_type", "event.type", "event.name", "eventType", "trigger", "action")
"""Those that the first releases knew."""
_ADDED_TYPE_PATHS = _paths("topic", "event_name")
_TYPE_PATHS = _FORMER_TYPE_PATHS + _ADDED_TYPE_PATHS
_KIND: Path = ("object",)
"""What a resource is (`"object":"page"`), for want of a type. It does not make a bare `id` the event's."""
_OCCURRED_PATHS = _paths(
    *("occurred_at", "event.timestamp", "event_timestamp", "eventTime"),
    *("timestamp", "created_at", "created", "createdAt"),
)
_RESOURCE_PATHS = _paths("data.object.id", "data.id", "payload.id", "resource_id")
_BARE_ID: Path = ("id",)

TYPE_NAMES = frozenset(path[0] for path in (*_TYPE_PATHS, _KIND))
_ADDED_TYPE_NAMES = frozenset(path[0] for path in _ADDED_TYPE_PATHS)

_TYPE = re.compile(r"[\w.:/ -]{1,100}", re.ASCII)
"""What passes for a type: it ends up in logs and tables, so a sentence or a control character does not."""

_RESOURCE = re.compile(r"[\x21-\x7e]{1,200}")
_TYPES_REMEMBERED = 256

_INDEX_DIGITS = 6
_DOTTED = re.compile(r"[^\s.]+(?:\.[^\s.]+)*")
_LONGEST_PATH = 200

Part = Literal["event_id", "type", "occurred_at", "resource"]


class Envelope(NamedTuple):
    """What could be read of a payload."""

    event_id: str | None = None
    """The sender's id of the event: redeliveries share it."""
    type: str = UNKNOWN_TYPE
    occurred_at: float | None = None
    """Unix time in seconds."""
    resource: str | None = None
    """The id of the contact, job, invoice, … that the event is about."""


class Paths(NamedTuple):
    """Where a sender keeps things, if it is known: dotted names, a number for an item of a list (from 0)."""

    event_id: str | None = None
    type: str | None = None
    occurred_at: str | None = None
    resource: str | None = None


class Try(NamedTuple):
    """One place that was looked at for one part of the envelope."""

    part: Part
    path: str
    outcome: Literal["read", "absent", "passed over"]
    """`passed over`: something is there, but it does not pass for what was looked for."""


def check_path(dotted: str) -> None:
    """Raises ValueError unless the text is a path such as `meta.event.id`."""
    if len(dotted) > _LONGEST_PATH or not _DOTTED.fullmatch(dotted):
        raise ValueError("write names separated by dots, such as meta.event_id")


class Reader:
    """Reads envelopes, with the paths that are configured."""

    def __init__(self, configured: Paths = Paths()) -> None:  # noqa: B008 - immutable
        def own(dotted: str | None) -> tuple[Path, ...]:
            return _paths(dotted) if dotted else ()

        self._configured = any(configured)
        self._event_id_paths = own(configured.event_id) + _EVENT_ID_PATHS
        self._type_paths = own(configured.type) + _TYPE_PATHS
        self._occurred_paths = own(configured.occurred_at) + _OCCURRED_PATHS
        self._own_resource_paths = own(configured.resource)

    def read(self, payload: Any) -> Envelope:
        """What can be read of a payload; an empty `Envelope` if nothing can."""
        fields = self._fields(payload)
        if fields is None:
            return Envelope()
        named = _first(fields, self._type_paths, _type)
        type_ = named or _type(fields.get("object")) or UNKNOWN_TYPE
        event_id = _first(fields, self._event_id_paths, _identifier) or _bare_event_id(fields, named)
        resource = _first(fields, self._resource_paths(type_), _resource)
        if resource is None and (bare_id := _identifier(fields.get("id"))) != event_id:
            resource = _resource(bare_id)
        return Envelope(event_id, type_, _first(fields, self._occurred_paths, read_moment), resource)

    def former_event_id(self, payload: Any, envelope: Envelope) -> str | None:
        """The event id that the first releases would have read: under it the event may have been recorded."""
        if not isinstance(payload, dict):
            return None
        if not self._configured and _ADDED_TYPE_NAMES.isdisjoint(payload):
            return envelope.event_id
        named = _first(payload, _FORMER_TYPE_PATHS, _type)
        return _first(payload, _EVENT_ID_PATHS, _identifier) or _bare_event_id(payload, named)

    def tries(self, payload: Any) -> Iterator[Try]:
        """Every place where `read` looks in a payload, in its order, and what comes of it."""
        fields = self._fields(payload)
        if fields is None:
            return
        envelope = self.read(payload)
        parts: list[tuple[Part, tuple[Path, ...], Callable[[Any], object]]] = [
            ("event_id", self._event_id_paths, _identifier),
            ("event_id", (_BARE_ID,), lambda _: envelope.event_id),
            ("type", (*self._type_paths, _KIND), _type),
            ("occurred_at", self._occurred_paths, read_moment),
            ("resource", self._resource_paths(envelope.type), _resource),
            ("resource", (_BARE_ID,), lambda _: envelope.resource),
        ]
        found: set[Part] = set()
        for part, paths, read in parts:
            for path in paths:
                if part in found:
                    break
                value = _at(fields, path)
                usable = value is not None and read(value) is not None
                yield Try(part, ".".join(path), "read" if usable else "absent" if value is None else "passed over")
                if usable:
                    found.add(part)

    def _fields(self, payload: Any) -> dict[str, Any] | None:
        """A payload by names; the items of a list have numbers, which only a configured path can be."""
        if isinstance(payload, list) and self._configured:
            return {str(number): item for number, item in enumerate(payload)}
        return payload if isinstance(payload, dict) else None

    def _resource_paths(self, type_: str) -> tuple[Path, ...]:
        return self._own_resource_paths + _built_in_resource_paths(type_)


_READER = Reader()


def read_envelope(body: bytes) -> Envelope:
    """What can be read of a body with the built-in paths alone."""
    return _READER.read(parse(body))


def subject(type: str) -> str:
    """What events of a type are about: `invoice` for `invoice.paid`."""
    return re.split(r"[._:/ ]", type.casefold(), maxsplit=1)[0]


def _at(fields: dict[str, Any], path: Path) -> Any:
    value: Any = fields
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) <= _INDEX_DIGITS and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _first(fields: dict[str, Any], paths: tuple[Path, ...], read: Callable[[Any], T | None]) -> T | None:
    """What `read` makes of the first value it can read."""
    for path in paths:
        if path[0] not in fields:  # most are not: this loop is on the way of every delivery
            continue
        value = fields[path[0]] if len(path) == 1 else _at(fields, path)
        if value is not None and (found := read(value)) is not None:
            return found
    return None


def _type(value: Any) -> str | None:
    return value if isinstance(value, str) and _TYPE.fullmatch(value) else None


def _identifier(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # more digits than int() converts: no id
            return None
    return None


def _bare_event_id(fields: dict[str, Any], type_: str | None) -> str | None:
    """A bare `id`, in an envelope with a type. Elsewhere it may be the resource's own, and deduplicating on
    that would swallow every later update.
    """
    if type_ is None or not (fields.get("resource_id") is not None or data_of(fields) is not fields):
        return None
    return _identifier(fields.get("id"))


@lru_cache(_TYPES_REMEMBERED)
def _built_in_resource_paths(type_: str) -> tuple[Path, ...]:
    named = subject(type_)
    entities = sorted(ENTITIES, key=lambda entity: entity != named)  # the one the type names first
    own = _paths(*(f"{entity}.id" for entity in entities), *(f"data.{entity}_id" for entity in entities))
    return _RESOURCE_PATHS + own


def _resource(value: Any) -> str | None:
    identifier = _identifier(value)
    return identifier if identifier and _RESOURCE.fullmatch(identifier) else None
