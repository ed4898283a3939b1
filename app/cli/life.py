"""The life of an event, as people read it: what happened when, and what it waits for."""

from bisect import insort
from collections.abc import Iterable, Iterator
from operator import itemgetter

from rich.markup import escape

from app.cli.output import STATE_STYLES, plain, precise
from app.inbox.record import Record, errors_of

_OUTCOME_STYLES = {"done": "green", "retry": "yellow", "dead": "red", "crashed": "red"}


def life(record: Record, due: float | None = None, *, whole: bool = False) -> Iterator[str]:
    """The history of an event, a line each, with rich's markup; with whole tracebacks, or the handlers' own frames."""
    yield f"[bold]{record.id}[/]  {escape(record.type)}  {state_of(record)}"
    if record.conflict_of:
        which = f"the same event id as {record.conflict_of}, other bytes, and they say something else"
        yield f"  [yellow]conflict[/]: {which}"
    if event_id := record.meta.get("event_id"):
        yield f"  event id {plain(event_id)}"
    if resource := record.meta.get("resource"):
        yield f"  resource {escape(resource)}"
    moments = list(_moments(record, due, whole=whole))
    for when, state in record.replays:
        insort(moments, _moment(when, "replayed", f"on request; it was {plain(state)}"), key=itemgetter(0))
    if record.redelivered_last:
        times = "once" if record.redelivered == 1 else f"{record.redelivered} times; this was the last"
        if record.rewritten:
            times += f"; {record.rewritten} with other bytes, the last of them {record.rewritten_size} bytes long"
        insort(moments, _moment(record.redelivered_last, "redelivered", times), key=itemgetter(0))
    if record.emptied:
        what = "discarded" if record.discarded else "erased"
        insort(moments, _moment(record.emptied, what, "on request: what it said is gone"), key=itemgetter(0))
    for _, lines in moments:
        yield from lines
    for name, _ in record.steps:
        yield f"  finished: {plain(name)}"
    for name, tries in record.unfinished.items():
        until = "given up" if tries.due is None else f"waits until {precise(tries.due)}"
        yield f"  {until}: handler {plain(name)}, attempts used: {tries.used}: {plain(tries.why)}"


def _moments(record: Record, due: float | None, *, whole: bool) -> Iterator[tuple[float, list[str]]]:
    """What happened, in this order; each in lines."""
    origin = "" if record.emptied else f"{len(record.body)} bytes from {record.meta.get('client')}, "
    yield _moment(record.received, "received", f"{origin}signed with the {_key(record)}")
    if admitted := record.meta.get("admitted"):
        why = f"by {plain(admitted['by'])}, verified again; refused at {admitted['refused_at']} for its signature"
        yield _moment(record.received, "admitted", why)
    yield _moment(record.received, "queued", "in the same step")
    for entry in record.attempts:
        yield _moment(entry["started"] / 1000, "handled", f"attempt {entry['attempt']}, by {entry['worker']}")
        took = f"after {entry['ended'] - entry['started']} ms"
        if reasons := [failed["given_up"] for failed in entry.get("errors", ()) if "given_up" in failed]:
            took += f": {'; '.join(dict.fromkeys(reasons))}"
        if entry.get("handlers") == 0:
            took += f": no handler wants {escape(record.type)}"
        yield _moment(
            entry["ended"] / 1000, entry["outcome"], took, _OUTCOME_STYLES[entry["outcome"]], errors_of(entry), whole
        )
    if record.state == "running" and record.started:
        where = f", in handler {plain(record.handler)}" if record.handler else ""
        yield _moment(record.started, "running", f"attempt {record.attempt}, by {record.worker}{where}", "blue")
    if due:
        yield _moment(due, "due", f"attempt {record.attempt + 1}", "yellow")


def state_of(record: Record) -> str:
    """An event's state, in its colour; of one that is done because it was discarded, that."""
    if record.discarded:
        return "[dim]discarded[/]"
    return f"[{STATE_STYLES[record.state]}]{record.state}[/]"


def _moment(
    seconds: float,
    what: str,
    details: str,
    style: str = "bold",
    errors: Iterable[dict[str, str]] = (),
    whole: bool = False,
) -> tuple[float, list[str]]:
    lines = [f"  {precise(seconds)}  [{style}]{what:<12}[/] {details}"]
    for error in errors:
        by = f" [dim]in handler {plain(error['handler'])}[/]" if error.get("handler") else ""
        lines.append(f"      [red]{plain(error['type'])}[/]: {plain(error['message'])}{by}")
        traceback = error.get("traceback") if whole else error.get("own") or error.get("traceback")
        lines += [f"      [dim]{plain(line)}[/]" for line in (traceback or "").splitlines()]
    return seconds, lines


def _key(record: Record) -> str:
    """The key that signed, as `jobhook keys` has it; records of earlier releases have no fingerprint."""
    role, fingerprint = record.meta.get("key"), record.meta.get("fingerprint")
    return f"{role} key" + (f" ({plain(str(fingerprint))})" if fingerprint else "")
