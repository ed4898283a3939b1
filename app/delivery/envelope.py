"""From the bytes of a delivery to what is known of the event in it: pure, and it never fails (P8).

What a JobsiteOn payload looks like is not documented, so the paths below are those of 41 surveyed
envelopes of other providers, in the order in which they are tried. Whatever cannot be read is left
out; the raw body is always kept.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import orjson

UNKNOWN_TYPE = "unknown"
ID_LENGTH = 32
"""Hex digits of an event's id: 128 bits."""
DIGEST_BYTES = 16
ENTITIES = ("contact", "property", "job", "invoice", "payment", "pricebook", "quote")

Path = tuple[str, ...]
T = TypeVar("T")


def _paths(*dotted: str) -> tuple[Path, ...]:
    return tuple(tuple(path.split(".")) for path in dotted)


_EVENT_ID_PATHS = _paths("event_id", "event.id", "eventId", "event.eventId")
_TYPE_PATHS = _paths("type", "event", "event_type", "event.type", "event.name", "eventType", "trigger", "action")
_OCCURRED_PATHS = _paths(
    *("occurred_at", "event.timestamp", "event_timestamp", "eventTime"),
    *("timestamp", "created_at", "created", "createdAt"),
)
_RESOURCE_PATHS = _paths("data.object.id", "data.id", "payload.id", "resource_id")
_NESTED = ("data", "payload", "content", "object")

_TYPE = re.compile(r"[\w.:/ -]{1,100}", re.ASCII)
"""What passes for a type: it ends up in logs and tables, so a sentence or a control character does not."""

_RESOURCE = re.compile(r"[\x21-\x7e]{1,200}")
_TYPES_REMEMBERED = 256
_MILLISECONDS_FROM = 1e11
"""Unix times from here on are milliseconds: as seconds this would be the year 5138."""


class Envelope(NamedTuple):
    """What could be read of a payload."""

    event_id: str | None = None
    """The sender's id of the event: redeliveries share it."""
    type: str = UNKNOWN_TYPE
    occurred_at: float | None = None
    """Unix time in seconds."""
    resource: str | None = None
    """The id of the contact, job, invoice, … that the event is about."""


class Identity(NamedTuple):
    """The names of a delivery; every part comes from signed bytes."""

    id: str
    """32 hex digits: the event's id, the same for every redelivery."""
    digest: bytes
    """The first half of the SHA-256 of the body: what tells other bytes under the same id."""


def parse(body: bytes) -> Any:
    """The JSON value of a body, or None if there is none that can be read.

    What orjson refuses by the letter of RFC 8259 (NaN, a BOM) gets a second chance with the standard
    library. With duplicate keys, both keep the last. Integers over 64 bits are read as floats.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            return None


def read_envelope(body: bytes) -> Envelope:
    """What can be read of a payload; an empty `Envelope` if nothing can."""
    payload = parse(body)
    if not isinstance(payload, dict):
        return Envelope()
    type_ = _first(payload, _TYPE_PATHS, _type) or UNKNOWN_TYPE
    event_id = _first(payload, _EVENT_ID_PATHS, _identifier)
    bare_id = _identifier(payload.get("id"))
    if event_id is None and bare_id is not None and type_ != UNKNOWN_TYPE and _is_envelope(payload):
        event_id = bare_id
    resource = _first(payload, _resource_paths(type_), _resource)
    if resource is None and bare_id != event_id:
        resource = _resource(bare_id)
    return Envelope(event_id, type_, _first(payload, _OCCURRED_PATHS, _time), resource)


def identify(body: bytes, event_id: str | None) -> Identity:
    """The identity of a delivery: from the event id in the signed body, else from the body itself."""
    digest = hashlib.sha256(body).digest()
    name = b"body:" + digest if event_id is None else b"event:" + event_id.encode("utf-8", "surrogatepass")
    return Identity(hashlib.sha256(name).hexdigest()[:ID_LENGTH], digest[:DIGEST_BYTES])


def subject(type: str) -> str:
    """What events of a type are about: `invoice` for `invoice.paid`."""
    return re.split(r"[._:/ ]", type.casefold(), maxsplit=1)[0]


def data_of(payload: Any) -> Any:
    """The business object of a payload: what is nested under `data` and the like, else the payload itself."""
    if isinstance(payload, dict):
        for name in _NESTED:
            if isinstance(payload.get(name), dict):
                return payload[name]
    return payload


def _first(payload: Mapping[str, Any], paths: tuple[Path, ...], read: Callable[[Any], T | None]) -> T | None:
    """What `read` makes of the first value it can read."""
    for path in paths:
        if path[0] not in payload:  # most are not: this loop is on the way of every delivery
            continue
        value: Any = payload
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
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


def _is_envelope(payload: dict[str, Any]) -> bool:
    """Whether a bare `id` is the event's: else it may be the resource's own, and deduplicating on that
    would swallow every later update.
    """
    return payload.get("resource_id") is not None or data_of(payload) is not payload


@lru_cache(_TYPES_REMEMBERED)
def _resource_paths(type_: str) -> tuple[Path, ...]:
    named = subject(type_)
    entities = sorted(ENTITIES, key=lambda entity: entity != named)  # the one the type names first
    own = _paths(*(f"{entity}.id" for entity in entities), *(f"data.{entity}_id" for entity in entities))
    return _RESOURCE_PATHS + own


def _resource(value: Any) -> str | None:
    identifier = _identifier(value)
    return identifier if identifier and _RESOURCE.fullmatch(identifier) else None


def _time(value: Any) -> float | None:
    if isinstance(value, str) and value.isdecimal() and len(value) > len("YYYYMMDD"):
        value = float(value)  # a unix time in quotes, of which `fromisoformat` would make the year 1772
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            return None
        seconds = seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds
        return seconds if 0 < seconds < _MILLISECONDS_FROM else None
    return None
