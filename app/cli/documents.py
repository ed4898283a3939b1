"""What an event is in JSON, for scripts. Times are ISO 8601, in UTC."""

from base64 import b64encode
from typing import Any

from app.cli.output import iso
from app.inbox.record import Record, errors_of

BASE64 = "_base64"
"""What the name of a body ends with that is given in base64."""


def summary(record: Record) -> dict[str, Any]:
    """An event in a line."""
    return {
        "id": record.id,
        "type": record.type,
        "resource": record.meta.get("resource"),
        "state": record.state,
        "received": iso(record.received),
        "attempts": len(record.attempts),
        "deliveries": 1 + record.redelivered,
        "conflict_of": record.conflict_of,
        "discarded": iso(record.discarded),
        "emptied": iso(record.emptied),
    }


def details(record: Record) -> dict[str, Any]:
    """All that an event has, but for its bodies."""
    times = ("started", "ended")
    return summary(record) | {
        "error": last_error(record),
        "unhandled": record.is_unhandled,
        "meta": record.meta,
        "redelivered_last": iso(record.redelivered_last),
        "rewritten": record.rewritten,
        "rewritten_bytes": record.rewritten_size,
        "steps": dict(record.steps),
        "waiting": {
            name: {"attempts": tries.used, "due": iso(tries.due) if tries.due else None, "why": tries.why}
            for name, tries in record.unfinished.items()
        },
        "replayed": [{"at": iso(at), "was": was} for at, was in record.replays],
        "history": [
            entry | {name: iso(entry[name] / 1000) for name in times if name in entry} for entry in record.attempts
        ],
    }


def bodies(record: Record) -> dict[str, Any]:
    """The body; and if a redelivery had another one, the last of these, or None if that was not kept.

    One that is not UTF-8 is shown as far as it can be, and is there as it came in base64.
    """
    found = _body("body", record.body)
    if record.rewritten:
        found |= _body("body_of_a_redelivery", record.rewritten_body)
    return found


def _body(name: str, raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        return {name: None}
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {name: raw.decode("utf-8", "replace"), name + BASE64: b64encode(raw).decode()}


def last_error(record: Record) -> str | None:
    """The class and the first line of the error of the last attempt that failed; None if none has."""
    for entry in reversed(record.attempts):
        for error in errors_of(entry):
            message: str = error.get("message") or ""
            first = next(iter(message.strip().splitlines()), "")
            kind: str = error.get("type", "").removeprefix("builtins.")
            return f"{kind}: {first}" if first else kind
    return None
