"""`jobhook explain`: what is read of a payload, from where, and what would make another delivery the same event."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.output import console, fail, iso, plain, print_json
from app.config.names import variable
from app.config.settings import Settings
from app.config.sources import configured_names, load_settings
from app.delivery.envelope import Envelope, Part, Reader, Try
from app.delivery.identity import Identity, canonical_form, identify
from app.delivery.payload import Payload, read_payload
from app.delivery.said import said_of_event, said_of_value
from app.inbox.inbox import Inbox, connect
from app.inbox.record import Record

STDIN = Path("-")
_NO_KEY = "no-key-is-needed-to-read-a-file"
_TITLES: dict[Part, str] = {"event_id": "event id", "type": "type", "occurred_at": "time", "resource": "resource"}
_NAMED: tuple[Part, ...] = ("event_id", "type")
_PATH_SETTINGS = ("event_id_path", "type_path", "time_path", "resource_path")
_UNCERTAIN = (
    "a parser would lose something of it: a key that comes twice, an integer over 64 bits, a decimal beyond a double"
)


@dataclass(frozen=True)
class _Reading:
    """A body, and all that is made of it."""

    body: bytes
    payload: Payload
    envelope: Envelope
    identity: Identity
    tries: list[Try]
    counts: list[str] | None
    """The names at the top of the payload that make another delivery the same event; None: the bytes do."""

    @property
    def left_out(self) -> list[str]:
        """The other names at the top, but for those that the event id and the type come from."""
        if self.counts is None or not isinstance(self.payload.value, dict):
            return []
        used = {
            tried.path.partition(".")[0] for tried in self.tries if tried.outcome == "read" and tried.part in _NAMED
        }
        return [name for name in self.payload.value if name not in self.counts and name not in used]

    def source(self, part: Part) -> str | None:
        """The path at which a part was found."""
        return next((tried.path for tried in self.tries if tried.part == part and tried.outcome == "read"), None)

    @property
    def decides(self) -> str:
        """By what another delivery is the same event: `event id`, `value` or `bytes`."""
        return "event id" if self.envelope.event_id else "bytes" if self.counts is None else "value"


def explain(
    id: Annotated[str | None, typer.Argument(help="An event's id, or its first digits.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with a body; - for standard input.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain what is read of a delivery: from where, what was tried, and what makes another one the same event."""
    if (id is None) == (file is None):
        raise typer.BadParameter("give an event's id, or --file")
    record = None
    if file:
        settings = _settings_for_a_file()
        body = _read_file(file)
    else:
        settings = load_settings()
        inbox = Inbox(connect(settings), settings)
        record = inbox.get(inbox.find(id or ""))
        body = record.body
    reading = _read(body, Reader(settings.envelope_paths))
    if as_json:
        print_json(_document(reading, record))
    else:
        _tell(reading, settings, record)


def _settings_for_a_file() -> Settings:
    """Those that are set. A payload can be looked at before there is a key."""
    keyless = variable("api_key") not in configured_names()
    return load_settings(api_key=_NO_KEY) if keyless else load_settings()


def _read_file(file: Path) -> bytes:
    if file == STDIN:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)


def _read(body: bytes, reader: Reader) -> _Reading:
    payload = read_payload(body)
    envelope = reader.read(payload.value)
    identity = identify(body, payload, envelope, reader.former_event_id(payload.value, envelope))
    counts = None
    if canonical_form(body, payload, envelope) is not None:
        by_id = envelope.event_id is not None
        said = said_of_event(payload.value, envelope.type)[1] if by_id else said_of_value(payload.value)
        counts = list(said) if isinstance(said, dict) else []
    return _Reading(body, payload, envelope, identity, list(reader.tries(payload.value)), counts)


def _document(reading: _Reading, record: Record | None) -> dict[str, Any]:
    values = _values(reading)
    parts: dict[str, object] = {
        part: {
            "value": values[part],
            "from": reading.source(part),
            "tried": [{"path": t.path, "outcome": t.outcome} for t in reading.tries if t.part == part],
        }
        for part in _TITLES
    }
    counts = reading.counts if reading.counts is None or reading.decides == "value" else ["type", *reading.counts]
    same = {"decides": reading.decides, "counts": counts, "does_not_count": reading.left_out}
    recorded = {"recorded_as": record.id, "conflict_of": record.conflict_of} if record else {}
    return {
        "bytes": len(reading.body),
        "json": reading.payload.strict,
        **parts,
        "same_event": same,
        "id": reading.identity.id,
    } | recorded


def _values(reading: _Reading) -> dict[Part, str | None]:
    """What was read, as it can be shown: without lone surrogates."""
    event_id, type_, occurred_at, resource = reading.envelope
    shown_id = event_id.encode("utf-8", "replace").decode() if event_id else None
    return {"event_id": shown_id, "type": type_, "occurred_at": iso(occurred_at), "resource": resource}


def _tell(reading: _Reading, settings: Settings, record: Record | None) -> None:
    console.print(f"{len(reading.body)} bytes, {_kind(reading.payload)}\n")
    values = _values(reading)
    for part, title in _TITLES.items():
        found = reading.source(part)
        value = plain(values[part] or "") if found else f"[yellow]{plain(values[part] or 'none')}[/]"
        console.print(f"[bold]{title:<9}[/] {value}" + (f"  [dim]from[/] {plain(found)}" if found else ""))
        _tell_tries([tried for tried in reading.tries if tried.part == part])
    if set_paths := [variable(name) for name in _PATH_SETTINGS if getattr(settings, name)]:
        console.print(f"[dim]Set: {', '.join(set_paths)}[/]")
    elif missing := [variable(f"{part}_path") for part in _NAMED if not reading.source(part)]:
        console.print(f"[dim]If it is elsewhere, say where: {', '.join(missing)}[/]")
    console.print()
    for line in _sameness(reading, settings):
        console.print(line)
    console.print(f"id {reading.identity.id}")
    if record and record.id != reading.identity.id:
        why = "a conflict" if record.conflict_of else "under other settings, or by an earlier release"
        console.print(f"[yellow]recorded as {record.id}[/]: {why}")


def _kind(payload: Payload) -> str:
    if payload.strict:
        return "JSON" if isinstance(payload.value, dict) else "JSON, but not an object"
    return "no JSON" if payload.value is None else "not quite JSON"


def _tell_tries(tries: list[Try]) -> None:
    for outcome, says in (("passed over", "passes for none"), ("absent", "nothing there")):
        if paths := [tried.path for tried in tries if tried.outcome == outcome]:
            console.print(f"  [dim]{says}: {plain(', '.join(paths))}[/]")


def _sameness(reading: _Reading, settings: Settings) -> list[str]:
    """What makes another delivery the same event."""
    by_id = reading.envelope.event_id is not None
    if by_id and settings.same_id == "duplicate":
        return [f"The same event: whatever has this event id ({variable('same_id')}=duplicate)."]
    also = "this event id and " if by_id else ""
    if reading.counts is None:
        why = _UNCERTAIN if reading.payload.strict else "it is not JSON by the letter"
        return [f"The same event: {also}the same bytes, because {why}."]
    also += "the same type and value of " if by_id else "the same value of "
    lines = [f"The same event: {also}{plain(', '.join(reading.counts) or 'the whole payload')}."]
    if reading.left_out:
        lines.append(f"[dim]Does not count: {plain(', '.join(reading.left_out))}[/]")
    return lines
