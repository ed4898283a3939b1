"""Collects what the oracle judges: the records and what is left over in Redis, and the life of one event."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from app.errors import EventNotFound
from app.inbox.inbox import Inbox
from app.inbox.record import Record
from tests.chaos.ledger import Ledger
from tests.chaos.oracle import Evidence, Stored

AROUND_SECONDS = 2.0
"""What happened so shortly before or after belongs to the life of an event."""

_LISTS = {"the RQ queue": "rq:queue:jobhook"}
_SETS = {"open events": "open", "queued": "queued", "leases": "running", "retries": "retrying"}
_PATTERNS = {"RQ jobs": "rq:job:*", "turns": "jobhook:turn:*", "lines": "jobhook:line:*"}


def leftovers(redis: "Redis") -> dict[str, int]:
    """What has to be empty once everything is done."""
    return {
        **{what: redis.llen(key) for what, key in _LISTS.items()},
        **{what: redis.zcard(f"jobhook:{key}") for what, key in _SETS.items()},
        **{what: sum(1 for _ in redis.scan_iter(pattern, count=1000)) for what, pattern in _PATTERNS.items()},
    }


def collect(ledger: Ledger, inbox: Inbox, strays: dict[str, int]) -> Evidence:
    """Everything there is to judge. `strays` is what is left over elsewhere than in Redis."""
    records = {record.id: _stored(record) for record in _records(inbox)}
    return Evidence(ledger.deliveries, ledger.effects(), ledger.interruptions, records, leftovers(inbox.redis) | strays)


def _records(inbox: Inbox) -> Iterator[Record]:
    for key in inbox.redis.scan_iter("jobhook:event:*", count=1000):
        yield inbox.get(key.decode().rpartition(":")[2])


def _stored(record: Record) -> Stored:
    return Stored(record.state, record.body, record.type, record.attempts)


def life(event: str, ledger: Ledger, inbox: Inbox, begun: float) -> list[str]:
    """Everything known of one event, in seconds since the run began; what Redis has noted, by its clock."""
    said = {delivery.said for delivery in ledger.deliveries if delivery.id == event}
    lines: list[tuple[float, str]] = []
    for delivery in ledger.deliveries:
        if delivery.said in said:
            answer = f"{delivery.status or 'no answer'} {delivery.verdict or ''}".strip()
            took = f" after {delivery.answered - delivery.sent:.3f} s" if delivery.answered else ""
            lines.append((delivery.sent, f"delivered to receiver {delivery.receiver}: {answer}{took}"))
    lines += [
        (effect.at, f"{effect.kind} of step {effect.step!r} by pid {effect.pid}, key {effect.key or '-'}")
        for effect in ledger.effects()
        if effect.event == event
    ]
    first, last = min(lines)[0], max(lines)[0]
    lines += [(at, f"({text})") for at, text in _struck(ledger) if first - AROUND_SECONDS < at < last + AROUND_SECONDS]
    shown = [f"  {at - begun:8.3f}  {text}" for at, text in sorted(lines)]
    return [event, *shown, *_history(event, inbox)]


def _struck(ledger: Ledger) -> Iterator[tuple[float, str]]:
    for episode in ledger.episodes:
        yield episode.struck, episode.fault
        yield episode.healing_from, f"end of: {episode.fault}"
    for cut in ledger.interruptions:
        yield cut.begun, f"{cut.what}, pid {cut.pid or 'of all'}"


def _history(event: str, inbox: Inbox) -> list[str]:
    try:
        record = inbox.get(event)
    except EventNotFound:
        return ["  no record"]
    return [
        f"  {record.state}, {record.type}, received {_clock(record.received)}, {record.attempt} attempts, steps "
        f"{[name for name, _ in record.steps]}",
        *(
            f"  {_clock(entry['started'] / 1000)}–{_clock(entry['ended'] / 1000)} {_attempt(entry)}"
            for entry in record.attempts
        ),
    ]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]


def _attempt(entry: dict[str, Any]) -> str:
    error = entry.get("error", {})
    return f"attempt {entry['attempt']} by {entry['worker']}: {entry['outcome']} {error.get('type', '')}"
