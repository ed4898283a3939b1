"""P4: one event however it is repeated, and two events however alike they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.envelope import Envelope, Paths, Reader
from app.delivery.identity import ID_LENGTH, Identity, identify
from app.delivery.payload import Payload, read_payload
from tests.support.deliveries import identity

CASES = Path(__file__).parents[1] / "cases" / "retries"


def named(body: bytes, event_id: str | None) -> Identity:
    return identify(body, read_payload(body), Envelope(event_id), event_id)


def same(one: Any, other: Any) -> bool:
    """Whether two payloads say the same event, to judge by id and digest."""
    first, second = identity(orjson.dumps(one)), identity(json.dumps(other, indent=1).encode())
    return (first.id, first.digest) == (second.id, second.digest)


# Retries as senders write them


@pytest.mark.parametrize("first", sorted(CASES.glob("*-first.json")), ids=lambda file: file.stem)
def test_retries_written_anew(first: Path) -> None:
    once, again = first.read_bytes(), first.with_name(first.name.replace("first", "again")).read_bytes()
    assert once != again
    assert identity(once).id == identity(again).id
    assert (identity(once).digest == identity(again).digest) == ("conflict" not in first.name)


ENVELOPE = {
    "id": "evt_1",
    "type": "invoice.paid",
    "created_at": "2026-03-03T09:00:00Z",
    "data": {"id": "inv_1", "n": 1},
}


@pytest.mark.parametrize(
    "more",
    [
        {"attempt": 2},
        {"delivery": {"id": "d2", "attempt": 2}},
        {"pending_webhooks": 0},
        {"created_at": "2026-03-03T09:10:00Z"},
        {"timestamp": 1772528400},
        {"sent_at": "2026-03-03T09:10:00Z", "request": {"id": None}, "livemode": True},
        {"workspace_id": "ws_demo"},
    ],
    ids=json.dumps,
)
def test_beside_a_business_object_nothing_else_counts(more: dict[str, Any]) -> None:
    assert same(ENVELOPE, ENVELOPE | more)


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"id": "inv_1", "n": 2}},
        {"data": {"id": "inv_1"}},
        {"data": {"id": "inv_1", "n": 1, "attempt": 2}},
        {"data": {"id": "inv_1", "n": 1.0}},
        {"data": {"id": "inv_1", "n": "1"}},
        {"data": {"id": "inv_1", "n": True}},
        {"type": "invoice.voided"},
        {"type": "Invoice.paid"},
        {"object": {"id": "line_1"}},
        {"content": "paid"},
        {"data": {}},
        {"data": [{"id": "inv_1", "n": 1}]},
    ],
    ids=json.dumps,
)
def test_another_type_or_business_object_is_a_conflict(other: dict[str, Any]) -> None:
    first, second = identity(orjson.dumps(ENVELOPE)), identity(orjson.dumps(ENVELOPE | other | {"event_id": "evt_1"}))
    first = identity(orjson.dumps(ENVELOPE | {"event_id": "evt_1"}))
    assert first.id == second.id
    assert first.digest != second.digest


def test_what_is_in_the_place_of_a_type_counts_though_it_passes_for_none() -> None:
    one, other = ({"event_id": "e1", "type": text, "data": {"n": 1}} for text in ("paid!", "voided!"))
    assert not same(one, other)
    assert same(one, one | {"sent_at": 1})


FLAT = {"event_id": "e1", "type": "invoice.paid", "invoice": "inv_1", "total": "120.00"}


@pytest.mark.parametrize(
    "name",
    [
        *("attempt", "attempts", "attempt_number", "attemptNumber", "attempt-count", "Attempt", "attempted_at"),
        *("retry", "retries", "retry_count", "retryCount", "retryNum", "is_retry", "isRetry", "retried_at"),
        *("delivery", "delivery_id", "deliveryId", "delivery_attempt", "delivery_attempts", "delivery_uuid"),
        *("webhook_delivery_id", "webhook_attempt", "webhook_id", "webhookId", "redelivery", "redelivered"),
        *("sent", "sent_at", "sentAt", "sent_on", "resent_at", "delivered_at", "x_attempt", "X-Retry-Count"),
        *("pending_webhooks", "last_attempt_at", "next_retry_at", "retries_left", "max_attempts", "total_attempts"),
    ],
)
def test_in_a_flat_payload_names_that_speak_of_the_delivery_do_not_count(name: str) -> None:
    for value in (1, 2, True, None, "d_1", {"id": "d_1", "attempt": 2, "at": 1}):
        assert same(FLAT, FLAT | {name: value}), value


@pytest.mark.parametrize(
    "name",
    [
        *("amount", "status", "note", "timestamp", "created_at", "request_id", "api_version", "id", "number", "count"),
        *(
            "delivery_address",
            "delivery_date",
            "delivery_status",
            "sent_to",
            "sent_by",
            "retry_policy",
            "attempt_result",
        ),
        *(
            "attempter",
            "sentiment",
            "presentation",
            "deliverable",
            "retrial",
            "webhook_url",
            "scheduled_at",
            "time",
            "",
        ),
    ],
)
def test_in_a_flat_payload_everything_else_counts(name: str) -> None:
    assert not same(FLAT, FLAT | {name: 1})
    assert not same(FLAT | {name: 1}, FLAT | {name: 2})


@pytest.mark.parametrize("value", [{"address": "12 Quarry Road"}, ["12 Quarry Road"]], ids=json.dumps)
def test_a_delivery_may_be_one_of_goods(value: Any) -> None:
    other = json.loads(json.dumps(value).replace("12", "13"))
    assert not same(FLAT, FLAT | {"delivery": value})
    assert not same(FLAT | {"delivery": value}, FLAT | {"delivery": other})
    assert same(FLAT | {"delivery": value}, FLAT | {"delivery": value, "attempt": 2})
    assert not same(FLAT, FLAT | {"delivery": {"$": 1}})


def test_the_attempts_of_an_event_that_is_an_object_of_its_own_do_not_count() -> None:
    one = {"event": {"id": "e1", "type": "job.created", "attempt": 1}, "job": {"id": "job_1"}}
    assert same(one, one | {"event": {"id": "e1", "type": "job.created", "attempt": 2, "sent_at": 1}})
    assert not same(one, one | {"event": {"id": "e1", "type": "job.created", "reason": "x"}})


# Without an event id

BARE = {"invoice": "inv_1", "status": "paid"}


@pytest.mark.parametrize(
    "counter",
    [
        *({"attempt": 2}, {"attempts": "3"}, {"attempt_number": 2}, {"retry": True}, {"retry": 0}, {"retries": 1}),
        *({"retry_count": 1}, {"retryCount": 1}, {"is_retry": False}, {"delivery_attempt": 2}, {"redelivery": True}),
        *({"pending_webhooks": 1}, {"attempt": 2, "retry_count": 1}, {"x-retry-count": 1}),
    ],
    ids=json.dumps,
)
def test_without_an_event_id_retry_counters_at_the_top_do_not_count(counter: dict[str, Any]) -> None:
    assert same(BARE, BARE | counter)


@pytest.mark.parametrize(
    "more",
    [
        *({"sent_at": 1}, {"timestamp": 1}, {"created_at": "2026-03-03"}, {"delivery_id": "d1"}, {"delivery": 1}),
        *({"attempt": "first"}, {"attempt": None}, {"attempts": [1]}, {"retry": {"n": 1}}, {"attempt": -1}),
        *({"attempt": 1.5}, {"attempt": 10**9}, {"attempt_id": 1}, {"sent": True}, {"data": {"attempt": 1}}),
        *({"delivery_count": 1}, {"webhook_id": 1}, {"max_attempts": 3}),
    ],
    ids=json.dumps,
)
def test_without_an_event_id_all_else_counts(more: dict[str, Any]) -> None:
    """An update of a resource that has no event id must not be taken for a retry of the one before."""
    assert not same(BARE, BARE | more)


def test_of_nothing_but_counters_they_are_what_is_said() -> None:
    assert not same({"attempts": 3}, {"attempts": 4})
    assert not same({}, {"attempts": 4})


@pytest.mark.parametrize("value", [[], [1, {"b": 1, "a": 2}], "text", 7, 1.5, None, True, {}], ids=json.dumps)
def test_any_json_value_is_an_identity(value: Any) -> None:
    assert same(value, value)


@pytest.mark.parametrize(
    "body",
    [b"", b"status=paid", b'{"n":1,"n":1}', b"[18446744073709551616]", b'["\xff"]', b"[NaN]", b"\xef\xbb\xbf{}"],
)
def test_where_values_could_be_confused_the_bytes_decide(body: bytes) -> None:
    digest = hashlib.sha256(body).digest()
    assert identity(body) == named(body, None)
    assert identity(body).digest == identity(body).bytes_digest == digest[:16]
    assert identity(body).id != identity(body + b" ").id
    assert named(body, "e1").digest == digest[:16]


def test_nested_as_deep_as_can_be_written_it_is_still_identified() -> None:
    """P8."""
    for depth in range(240, 262):
        body = b'{"event_id":"e1","data":{"n":' + b"[" * depth + b"]" * depth + b"}}"
        assert len(identity(body).digest) == 16


# Releases before


def test_ids_stay_the_same_from_release_to_release() -> None:
    """Else an update of Jobhook would make every redelivery a new event."""
    # printf 'event:evt_1' | sha256sum | cut -c1-32
    assert named(b"{}", "evt_1").id == "1f5e8df173a948f26f16b9c040478752"
    # (printf body:; printf '{}' | openssl dgst -sha256 -binary) | sha256sum | cut -c1-32
    assert named(b"{}", None).id == "11657abc6268b27591f98b7d4c3f9724"
    # printf '{}' | sha256sum | cut -c1-32
    assert named(b"{}", None).digest.hex() == "44136fa355b3678a1146ad16f7e8649e"
    # printf '["invoice.paid",{"data":{"id":"inv_1","n":1}}]' | sha256sum | cut -c1-32
    said = b'["invoice.paid",{"data":{"id":"inv_1","n":1}}]'
    assert identity(orjson.dumps(ENVELOPE)).digest == hashlib.sha256(said).digest()[:16]


def by_bytes(body: bytes) -> str:
    """The id of a body without an event id, as the first releases made it."""
    return hashlib.sha256(b"body:" + hashlib.sha256(body).digest()).hexdigest()[:ID_LENGTH]


def test_a_body_in_the_one_form_has_the_id_it_has_always_had() -> None:
    assert identity(b'{"invoice":"inv_1","status":"paid"}')[::2] == (
        by_bytes(b'{"invoice":"inv_1","status":"paid"}'),
        "",
    )


def test_any_other_body_has_its_former_id_beside_it() -> None:
    body = b'{"status": "paid", "invoice": "inv_1"}'
    assert identity(body).former_id == by_bytes(body) != identity(body).id
    assert identity(body).id == by_bytes(b'{"invoice":"inv_1","status":"paid"}')


def test_an_event_id_that_releases_before_did_not_find_has_a_former_id() -> None:
    body = b'{"id":"evt_1","topic":"invoice.paid","data":{"id":"inv_1"}}'
    assert identity(body).former_id == by_bytes(body)
    assert identity(body, Reader(Paths(event_id="data.id"))).former_id == by_bytes(body)
    known = b'{"id":"evt_1","type":"invoice.paid","topic":"x","data":{"id":"inv_1"}}'
    assert identity(known).former_id == ""
    assert identity(known, Reader(Paths(event_id="data.id"))).former_id == named(b"", "evt_1").id
    assert identity(known, Reader(Paths(type="data.id"))).former_id == ""


# Properties


@given(ids=st.lists(st.text(st.characters(), min_size=1), min_size=2, max_size=2, unique=True), body=st.binary())
def test_different_event_ids_are_different_events(ids: list[str], body: bytes) -> None:
    """Also when the bytes do not differ, and when an id looks like a hash of a body."""
    assert len({named(body, event_id).id for event_id in (*ids, None)}) == 3


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "1", "attempt"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "attempt", "retry", "sent_at"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(one=VALUES, other=VALUES)
def test_payloads_that_say_something_else_are_different_events(one: Any, other: Any) -> None:
    """`repr` tells 1 from True. Nothing but counters at the top may differ."""

    def counted(value: Any) -> str:
        inner = dict(value) if isinstance(value, dict) else {}
        left = sorted((name, repr(part)) for name, part in inner.items() if name not in {"attempt", "retry"})
        return repr(left or value)

    if same(one, other):
        assert counted(json.loads(json.dumps(one, sort_keys=True))) == counted(
            json.loads(json.dumps(other, sort_keys=True))
        )


@given(one=VALUES, other=VALUES)
def test_business_objects_that_differ_are_conflicts(one: Any, other: Any) -> None:
    def wrap(value: Any) -> dict[str, Any]:
        return {"event_id": "e1", "type": "t", "data": {"value": value}, "attempt": 1}

    assert same(wrap(one), wrap(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@given(st.binary())
def test_no_body_is_an_error(body: bytes) -> None:
    """P8."""
    assert identify(body, Payload(None, strict=False), Envelope(), None).former_id == ""
    assert len(identity(body).id) == ID_LENGTH
