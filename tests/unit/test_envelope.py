"""P4 and P8: what is read of a payload, and that nothing in a payload is ever an error.

The shapes are assumptions: JobsiteOn documents no payload. The paths are those of the survey of other providers.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.delivery.envelope import ENTITIES, UNKNOWN_TYPE, Envelope, Identity, data_of, identify, parse, read_envelope

NINE_O_CLOCK = 1772528400.0
"""2026-03-03T09:00:00Z."""


def read(payload: Any) -> Envelope:
    return read_envelope(json.dumps(payload).encode())


def identity(body: bytes) -> Identity:
    return identify(body, read_envelope(body).event_id)


# Sample payloads

SAMPLES: dict[str, dict[str, Any]] = {
    "contact": {"id": "con_1", "first_name": "Dana", "address": {"line1": "12 Quarry Road"}, "tags": ["landlord"]},
    "property": {"id": "prop_1", "contact_ids": ["con_1"], "primary_contact_id": "con_1", "archived": False},
    "job": {"id": "job_1", "status": "in_progress", "contact_id": "con_1", "property_id": "prop_1"},
    "invoice": {"id": "inv_1", "status": "sent", "contact_id": "con_1", "job_id": "job_1", "total": "1569.63"},
    "payment": {"id": "pay_1", "invoice_id": "inv_1", "amount": "100.00", "method": "check"},
    "pricebook": {"id": "pb_1", "name": "Labor", "unit": "hour", "unit_price": "85.00"},
}


@pytest.mark.parametrize("entity", SAMPLES)
def test_reads_the_assumed_envelope(entity: str) -> None:
    payload = {
        "id": "evt_1",
        "type": f"{entity}.updated",
        "created_at": "2026-03-03T09:00:00Z",
        "workspace_id": "ws_demo",
        "data": SAMPLES[entity],
    }
    assert read(payload) == Envelope("evt_1", f"{entity}.updated", NINE_O_CLOCK, SAMPLES[entity]["id"])
    assert data_of(payload) == SAMPLES[entity]


@pytest.mark.parametrize("entity", SAMPLES)
def test_a_bare_resource_has_no_event_id(entity: str) -> None:
    assert read(SAMPLES[entity]) == Envelope(resource=SAMPLES[entity]["id"])
    assert data_of(SAMPLES[entity]) == SAMPLES[entity]


OTHER_SHAPES: dict[str, tuple[Any, Envelope]] = {
    "event and event_id": (
        {"event": "invoice.paid", "event_id": "e1", "timestamp": 1772528400, "payload": {"id": 42, "total": 156963}},
        Envelope("e1", "invoice.paid", NINE_O_CLOCK, "42"),
    ),
    "event is an object": (
        {"event": {"id": "e1", "type": "job.created", "timestamp": 1772528400000}, "job": {"id": "job_1"}},
        Envelope("e1", "job.created", NINE_O_CLOCK, "job_1"),
    ),
    "ids are numbers": (
        {"id": 7, "type": "job.updated", "data": {"id": 42, "status": "In Progress"}},
        Envelope("7", "job.updated", None, "42"),
    ),
    "names only": ({"event": "JobCompleted"}, Envelope(type="JobCompleted")),
    "array": ([{"id": "evt_1", "type": "job.created", "data": {}}], Envelope()),
    "string": ("job.created", Envelope()),
    "null": (None, Envelope()),
}


@pytest.mark.parametrize(("payload", "expected"), OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_reads_other_shapes(payload: Any, expected: Envelope) -> None:
    assert read(payload) == expected


# Event id


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("path", ["event_id", "event.id", "eventId", "event.eventId"])
def test_reads_the_event_id(path: str) -> None:
    assert read(nested(path, "e1")).event_id == "e1"


@pytest.mark.parametrize(
    "more",
    [{"data": {}}, {"payload": {}}, {"content": {}}, {"object": {}}, {"resource_id": "job_1"}],
    ids=lambda more: next(iter(more)),
)
def test_a_bare_id_is_the_events_in_an_envelope(more: dict[str, Any]) -> None:
    assert read({"id": "evt_1", "type": "job.updated"} | more).event_id == "evt_1"


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param({"id": "job_1"}, id="nothing else"),
        pytest.param({"id": "job_1", "type": "residential", "address": {"city": "Boulder"}}, id="nothing nested"),
        pytest.param({"id": "job_1", "data": {"title": "Heater"}}, id="no type"),
        pytest.param({"id": "job_1", "type": 3, "data": {}}, id="type is no string"),
        pytest.param({"id": "job_1", "type": "", "data": {}}, id="type is empty"),
        pytest.param({"id": "job_1", "type": "residential", "data": [1]}, id="data is a list"),
        pytest.param({"id": "job_1", "type": "residential", "data": None}, id="data is null"),
        pytest.param({"id": "job_1", "type": "residential", "resource_id": None}, id="resource_id is null"),
    ],
)
def test_a_bare_id_may_be_the_resources(payload: dict[str, Any]) -> None:
    """P4: deduplicating on it would swallow every later update of that resource."""
    assert read(payload).event_id is None
    assert read(payload).resource == "job_1"


def test_a_webhook_id_names_the_subscription() -> None:
    payload = {"webhook_id": "wh_1", "webhookId": "wh_1", "type": "job.updated", "data": {}}
    assert read(payload) == Envelope(type="job.updated")


@pytest.mark.parametrize("value", [True, False, 1.5, 1e300, None, "", [], {}, ["e1"]], ids=json.dumps)
def test_what_is_no_id_is_passed_over(value: Any) -> None:
    """P8."""
    assert read({"event_id": value}).event_id is None
    assert read({"event_id": value, "eventId": "e1"}).event_id == "e1"


@pytest.mark.parametrize(("value", "event_id"), [(0, "0"), (-7, "-7"), (2**63, "9223372036854775808")], ids=str)
def test_a_number_is_an_id(value: int, event_id: str) -> None:
    assert read({"event_id": value}).event_id == event_id


# Type


@pytest.mark.parametrize(
    "path", ["type", "event", "event_type", "event.type", "event.name", "eventType", "trigger", "action"]
)
def test_reads_the_type(path: str) -> None:
    assert read(nested(path, "invoice.paid")).type == "invoice.paid"


@pytest.mark.parametrize(
    "value",
    [7, None, True, "", [], {}, "paid\nFAKE LOG LINE", "a; b", "<b>", "\u202epaid", "bezahlt für", "x" * 101],
    ids=json.dumps,
)
def test_what_is_no_type_is_passed_over(value: Any) -> None:
    """P8, and it ends up in logs and tables."""
    assert read({"type": value}).type == UNKNOWN_TYPE
    assert read({"type": value, "action": "paid"}).type == "paid"


# Time


@pytest.mark.parametrize(
    "path",
    [
        *("occurred_at", "event.timestamp", "event_timestamp", "eventTime"),
        *("timestamp", "created_at", "created", "createdAt"),
    ],
)
def test_reads_when_it_occurred(path: str) -> None:
    assert read(nested(path, 1772528400)).occurred_at == NINE_O_CLOCK


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-03T09:00:00Z",
        "2026-03-03T09:00:00.000Z",
        "2026-03-03T09:00:00.000000000Z",
        "2026-03-03T02:00:00-07:00",
        "20260303T090000Z",
        "2026-03-03 09:00:00",
        1772528400,
        1772528400.0,
        1772528400000,
        "1772528400",
        "1772528400000",
    ],
    ids=str,
)
def test_reads_times_in_every_usual_form(value: Any) -> None:
    assert read({"occurred_at": value}).occurred_at == NINE_O_CLOCK


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is not set to UTC."""
    monkeypatch.setenv("TZ", "MST7")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_times_without_a_zone_are_utc_wherever_this_runs() -> None:
    assert read({"occurred_at": "2026-03-03T09:00:00"}).occurred_at == NINE_O_CLOCK
    assert read({"occurred_at": "2026-03-03"}).occurred_at == NINE_O_CLOCK - 9 * 3600
    assert read({"occurred_at": "20260303"}).occurred_at == NINE_O_CLOCK - 9 * 3600


def test_keeps_fractions_of_seconds() -> None:
    assert read({"occurred_at": 1772528400250}).occurred_at == NINE_O_CLOCK + 0.25
    assert read({"occurred_at": "2026-03-03T09:00:00.250Z"}).occurred_at == NINE_O_CLOCK + 0.25


@pytest.mark.parametrize(
    "value",
    [
        *("", "yesterday", "03/03/2026", "2026-13-01", "2026-03-03T25:00:00Z", "1712120900000000000", "9" * 5000),
        *(True, 0, -1, 1e300, 10**19, 10**400, float("nan"), float("inf"), [], {}, [1772528400]),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_time_is_passed_over(value: Any) -> None:
    """P8."""
    assert read({"occurred_at": value}).occurred_at is None
    assert read({"occurred_at": value, "created": 1772528400}).occurred_at == NINE_O_CLOCK


# Resource


@pytest.mark.parametrize(
    "path",
    [
        *("data.object.id", "data.id", "payload.id", "resource_id", "id"),
        *(f"{entity}.id" for entity in ENTITIES),
        *(f"data.{entity}_id" for entity in ENTITIES),
    ],
)
def test_reads_the_resource(path: str) -> None:
    assert read(nested(path, "res_1")).resource == "res_1"


def test_prefers_the_resource_that_the_type_names() -> None:
    payload = {"contact": {"id": "con_1"}, "invoice": {"id": "inv_1"}, "job": {"id": "job_1"}}
    assert read({"type": "Invoice.Paid"} | payload).resource == "inv_1"
    assert read({"type": "job_updated"} | payload).resource == "job_1"


def test_the_events_own_id_is_not_its_resource() -> None:
    assert read({"id": "evt_1", "type": "job.updated", "data": {"title": "Heater"}}).resource is None


@pytest.mark.parametrize("value", ["", "a b", "job\n1", "jöb", "x" * 201, 1.5, True, None], ids=json.dumps)
def test_what_is_no_resource_is_passed_over(value: Any) -> None:
    """P8, and it ends up in tables."""
    assert read({"data": {"id": value}, "resource_id": "res_1"}).resource == "res_1"


# The business object


@pytest.mark.parametrize("name", ["data", "payload", "content", "object"])
def test_finds_the_business_object(name: str) -> None:
    assert data_of({"type": "job.updated", name: {"id": "job_1"}}) == {"id": "job_1"}


@pytest.mark.parametrize("payload", [{"data": "text", "id": 1}, [1], "text", 7, None], ids=json.dumps)
def test_the_payload_is_the_business_object_if_nothing_is_nested(payload: Any) -> None:
    assert data_of(payload) == payload


# Unusual bytes

TYPED = b'"type":"job.created"'
UNREADABLE = {
    "empty": b"",
    "white space": b" \n",
    "no JSON": b"event=invoice.paid&id=1",
    "XML": b"<event>invoice.paid</event>",
    "cut off": b"{" + TYPED,
    "trailing comma": b"{" + TYPED + b",}",
    "two values": b"{" + TYPED + b"}{}",
    "not UTF-8": b"{" + TYPED + b',"note":"\xff\xfe"}',
    "NUL bytes": b"\0" * 100,
    "gzip": b"\x1f\x8b\x08\x00",
    "an integer of 5,000 digits": b"{" + TYPED + b',"event_id":' + b"9" * 5000 + b"}",
    "a list nested 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "objects nested 10,000 deep, cut off": b'{"data":' * 10_000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_body_is_of_unknown_type(body: bytes) -> None:
    """P8: and it has an identity, by which a redelivery is recognised (P4)."""
    assert read_envelope(body) == Envelope()
    assert identity(body).id == identity(bytes(body)).id != identity(body + b" ").id


READABLE = {
    "BOM": b"\xef\xbb\xbf{" + TYPED + b"}",
    "UTF-16": ("{" + TYPED.decode() + "}").encode("utf-16"),
    "NaN": b"{" + TYPED + b',"total":NaN,"tax":-Infinity}',
    "a number that is too large": b"{" + TYPED + b',"total":1e999}',
    "an integer of 100 digits": b"{" + TYPED + b',"total":' + b"9" * 100 + b"}",
    "lone surrogate": b"{" + TYPED + b',"note":"\\ud800"}',
    "duplicate keys": b'{"type":"job.deleted",' + TYPED + b"}",
    "escaped NUL": b"{" + TYPED + b',"note":"\\u0000"}',
}


@pytest.mark.parametrize("body", READABLE.values(), ids=READABLE)
def test_reads_what_is_not_quite_json(body: bytes) -> None:
    """P8."""
    assert read_envelope(body).type == "job.created"


def test_deep_nesting_beside_the_type_does_no_harm() -> None:
    """P8: how deep can be read depends on the Python; that nothing breaks does not."""
    body = b"{" + TYPED + b',"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    assert read_envelope(body).type in {"job.created", UNKNOWN_TYPE}


def test_a_lone_surrogate_may_be_an_id() -> None:
    """P8."""
    body = b'{"event_id":"\\ud800"}'
    assert identity(body).id != identity(b'{"event_id":"\\ud801"}').id
    assert identity(body).id == identity(body + b" ").id


# Identity


def test_ids_stay_the_same_from_release_to_release() -> None:
    """P4: else an update of Jobhook would make every redelivery a new event."""
    # printf 'event:evt_1' | sha256sum | cut -c1-32
    assert identify(b"{}", "evt_1").id == "1f5e8df173a948f26f16b9c040478752"
    # (printf body:; printf '{}' | openssl dgst -sha256 -binary) | sha256sum | cut -c1-32
    assert identify(b"{}", None).id == "11657abc6268b27591f98b7d4c3f9724"
    # printf '{}' | sha256sum | cut -c1-32
    assert identify(b"{}", None).digest.hex() == "44136fa355b3678a1146ad16f7e8649e"


def test_the_same_event_id_with_other_bytes_is_told_apart() -> None:
    """P4."""
    one, other = identity(b'{"event_id":"e1","n":1}'), identity(b'{"event_id":"e1","n":2}')
    assert one.id == other.id
    assert one.digest != other.digest
    assert other == identity(b'{"event_id":"e1","n":2}')


NAMES = st.sampled_from(
    ["id", "event", "event_id", "type", "timestamp", "created_at", "data", "object", "payload", "resource_id", "job"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["job.created", "2026-03-03T09:00:00Z", 10**30, "1" * 13]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=6),
    max_leaves=20,
)
BODIES = st.binary() | VALUES.map(lambda value: json.dumps(value).encode())


@settings(deadline=None)
@given(body=BODIES)
def test_any_body_can_be_read_and_identified(body: bytes) -> None:
    """P8; P4: the same bytes have the same identity."""
    envelope, found = read_envelope(body), identity(body)
    assert 1 <= len(envelope.type) <= 100
    assert len(found.id) == 32
    assert set(found.id) <= set("0123456789abcdef")
    assert identity(bytes(bytearray(body))) == found


@settings(deadline=None)
@given(ids=st.lists(st.text(st.characters(), min_size=1), min_size=2, max_size=2, unique=True), body=st.binary())
def test_different_event_ids_are_different_events(ids: list[str], body: bytes) -> None:
    """P4: also when the bytes do not differ, and when an id looks like a hash of a body."""
    assert len({identify(body, event_id).id for event_id in (*ids, None)}) == 3


@settings(deadline=None)
@given(value=VALUES)
def test_no_event_id_from_what_is_not_in_the_body(value: Any) -> None:
    """P4: an id is read, never made up."""
    event_id = read(value).event_id
    assert event_id is None or event_id in {str(leaf) for leaf in leaves(parse(json.dumps(value).encode()))}


def leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for part in inner for leaf in leaves(part)]
