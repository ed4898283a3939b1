"""From the bytes of a delivery to what is known of the event in it: pure, and it never fails (P8).

What a JobsiteOn payload looks like is not documented, so the paths below are those of 41 surveyed
envelopes of other providers, in the order in which they are tried. Whatever cannot be read is left
out; the raw body is always kept.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

UNKNOWN_TYPE = "unknown"
ID_LENGTH = 32
"""Hex digits of an event's id: 128 bits."""
ENTITIES = ("contact", "property", "job", "invoice", "payment", "pricebook", "quote")

_EVENT_ID_PATHS = ("event_id", "event.id", "eventId", "event.eventId")
_TYPE_PATHS = ("type", "event", "event_type", "event.type", "event.name", "eventType", "trigger", "action")
_OCCURRED_PATHS = (
    *("occurred_at", "event.timestamp", "event_timestamp", "eventTime"),
    *("timestamp", "created_at", "created", "createdAt"),
)
_RESOURCE_PATHS = ("data.object.id", "data.id", "payload.id", "resource_id")
_NESTED = ("data", "payload", "content", "object")

_TYPE = re.compile(r"[\w.:/ -]{1,100}", re.ASCII)
"""What passes for a type: it ends up in logs and tables, so a sentence or a control character does not."""

_RESOURCE = re.compile(r"[\x21-\x7e]{1,200}")
_MILLISECONDS_FROM = 1e11
"""Unix times from here on are milliseconds: as seconds this would be the year 5138."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What could be read of a payload."""

    event_id: str | None = None
    """The sender's id of the event: redeliveries share it."""
    type: str = UNKNOWN_TYPE
    occurred_at: float | None = None
    """Unix time in seconds."""
    resource: str | None = None
    """The id of the contact, job, invoice, … that the event is about."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The names of a delivery; every part comes from signed bytes."""

    id: str
    """32 hex digits: the event's id, the same for every redelivery."""
    conflict_id: str
    """The id it gets instead if `id` is taken by other bytes."""
    digest: bytes
    """SHA-256 of the body."""


def parse(body: bytes) -> Any:
    """The JSON value of a body, or None if there is none that can be read.

    What orjson refuses by the letter of RFC 8259 (NaN, a BOM, huge integers) gets a second chance with
    the standard library. With duplicate keys, both keep the last.
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
    type_ = next((v for v in _values(payload, _TYPE_PATHS) if isinstance(v, str) and _TYPE.fullmatch(v)), None)
    event_id = _event_id(payload, type_)
    candidates = _resource_candidates(payload, type_, event_id)
    return Envelope(
        event_id=event_id,
        type=type_ or UNKNOWN_TYPE,
        occurred_at=next((t for t in map(_time, _values(payload, _OCCURRED_PATHS)) if t is not None), None),
        resource=next((r for r in map(_resource, candidates) if r is not None), None),
    )


def identify(body: bytes, event_id: str | None) -> Identity:
    """The identity of a delivery: from the event id in the signed body, else from the body itself."""
    digest = hashlib.sha256(body).digest()
    name = b"body:" + digest if event_id is None else b"event:" + event_id.encode("utf-8", "surrogatepass")
    return Identity(
        id=_short_hash(name),
        conflict_id=_short_hash(b"conflict:" + digest + name),
        digest=digest,
    )


def data_of(payload: Any) -> Any:
    """The business object of a payload: what is nested under `data` and the like, else the payload itself."""
    if isinstance(payload, dict):
        for name in _NESTED:
            if isinstance(payload.get(name), dict):
                return payload[name]
    return payload


def _short_hash(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:ID_LENGTH]


def _values(payload: Mapping[str, Any], paths: tuple[str, ...]) -> Iterator[Any]:
    for path in paths:
        value: Any = payload
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield value


def _identifier(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # more digits than int() converts: no id
            return None
    return None


def _event_id(payload: Mapping[str, Any], type_: str | None) -> str | None:
    for value in _values(payload, _EVENT_ID_PATHS):
        if (event_id := _identifier(value)) is not None:
            return event_id
    # A bare `id` may be the resource's own; deduplicating on that would swallow every later update.
    is_envelope = payload.get("resource_id") is not None or any(isinstance(payload.get(name), dict) for name in _NESTED)
    return _identifier(payload.get("id")) if type_ and is_envelope else None


def _resource_candidates(payload: Mapping[str, Any], type_: str | None, event_id: str | None) -> Iterator[Any]:
    subject = re.split(r"[._:/ ]", type_.casefold(), maxsplit=1)[0] if type_ else ""
    entities = sorted(ENTITIES, key=lambda entity: entity != subject)  # the one the type names first
    yield from _values(payload, _RESOURCE_PATHS)
    yield from _values(payload, tuple(f"{entity}.id" for entity in entities))
    yield from _values(payload, tuple(f"data.{entity}_id" for entity in entities))
    if _identifier(payload.get("id")) != event_id:
        yield payload.get("id")


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
        return seconds if math.isfinite(seconds) and 0 < seconds < _MILLISECONDS_FROM else None
    return None
