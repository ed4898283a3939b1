"""P4 and P8: what is read of a payload, and that nothing in a payload is ever an error.

The shapes are assumptions: JobsiteOn documents no payload. The paths are those of the survey of other providers.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.delivery.envelope import ENTITIES, UNKNOWN_TYPE, Envelope, Paths, Reader, check_path, read_envelope
from app.delivery.payload import data_of, parse
from tests.support.deliveries import identity

NINE_O_CLOCK = 1772528400.0
"""2026-03-03T09:00:00Z."""


def read(payload: Any) -> Envelope:
    return read_envelope(json.dumps(payload).encode())


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


SHOPIFYS = {"id": "evt_1", "topic": "orders/paid", "data": {"id": "inv_1"}}
METAS = {"id": "page_1", "object": "page", "content": {"changes": [1]}}


def test_what_a_resource_is_does_not_make_a_bare_id_the_events() -> None:
    """P4: `object` tells what the `id` beside it is of; a type tells what has happened."""
    assert read(METAS) == Envelope(type="page", resource="page_1")
    assert read(SHOPIFYS) == Envelope("evt_1", "orders/paid", None, "inv_1")


# Type


@pytest.mark.parametrize(
    "path",
    [
        *("type", "event", "event_type", "event.type", "event.name", "eventType", "trigger", "action"),
        *("topic", "event_name", "object"),
    ],
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
    assert envelope == Reader().read(parse(body))
    assert len(found.id) == 32
    assert set(found.id) <= set("0123456789abcdef")
    assert identity(bytes(bytearray(body))) == found


@settings(deadline=None)
@given(value=VALUES)
def test_no_event_id_from_what_is_not_in_the_body(value: Any) -> None:
    """P4: an id is read, never made up."""
    event_id = read(value).event_id
    assert event_id is None or event_id in {str(leaf) for leaf in leaves(parse(json.dumps(value).encode()))}


def leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for part in inner for leaf in leaves(part)]


# Configured paths

ODD = {
    "meta": {"uid": "e1", "what": "invoice.paid", "when": "Tue, 03 Mar 2026 09:00:00 GMT"},
    "subjects": [{"no": 7}, {"no": 8}],
    "event_id": "other",
    "type": "other",
    "created": 1,
    "data": {"id": "other"},
}
CONFIGURED = Reader(Paths("meta.uid", "meta.what", "meta.when", "subjects.1.no"))


def test_configured_paths_come_first() -> None:
    assert CONFIGURED.read(ODD) == Envelope("e1", "invoice.paid", NINE_O_CLOCK, "8")


@pytest.mark.parametrize(
    "paths", [Paths("a", "b", "c", "d"), Paths("meta", "meta", "meta", "meta"), Paths(resource="subjects.9")]
)
def test_where_they_lead_nowhere_the_usual_places_are_tried(paths: Paths) -> None:
    assert Reader(paths).read(ODD) == read(ODD)


def test_they_lead_into_a_list_too() -> None:
    assert Reader(Paths(event_id="0.id", type="0.type")).read([{"id": "e1", "type": "job.created"}]) == Envelope(
        "e1", "job.created"
    )
    assert Reader(Paths(event_id="events.0.id")).read({"events": [{"id": "e1"}]}).event_id == "e1"


@pytest.mark.parametrize(
    "payload", [None, 7, "text", [], {}, [[]], {"meta": "e1"}, {"meta": {"uid": None}}], ids=json.dumps
)
def test_no_payload_is_an_error(payload: Any) -> None:
    """P8."""
    assert CONFIGURED.read(payload) == Envelope()


@pytest.mark.parametrize("path", ["id", "meta.event_id", "data.items.0.id", "x-y", "été.id"])
def test_what_a_path_is(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a b", "a.b\n", " a", "x" * 201])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="separated by dots"):
        check_path(path)


# The places looked at


def test_every_place_looked_at_can_be_told() -> None:
    payload = {"id": "evt_1", "type": 7, "event": "job.created", "data": {"title": "Heater"}}
    assert [" ".join(tried) for tried in Reader().tries(payload)][:8] == [
        "event_id event_id absent",
        "event_id event.id absent",
        "event_id eventId absent",
        "event_id event.eventId absent",
        "event_id id read",
        "type type passed over",
        "type event read",
        "occurred_at occurred_at absent",
    ]


@given(value=VALUES, configured=st.sampled_from([Paths(), Paths("data.id", "data.type", "job", "event.0")]))
def test_what_is_told_is_what_is_read(value: Any, configured: Paths) -> None:
    reader = Reader(configured)
    payload = parse(json.dumps(value).encode())
    found = {tried.part for tried in reader.tries(payload) if tried.outcome == "read"}
    envelope = reader.read(payload)
    assert found == {part for part, value in envelope._asdict().items() if value not in {None, UNKNOWN_TYPE}}
