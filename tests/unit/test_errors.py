"""The answers other than 200: stable, and the same whatever was sent."""

import json
import re

import pytest

from app import errors
from app.errors import JobhookError, describe
from app.receiver import refusals
from app.receiver.refusals import ELSEWHERE, PROBLEM_TYPE_BASE, REFUSALS, Refusal

# Senders and alerts may rely on these: a change breaks somebody.
STABLE = {
    "Unauthentic": (401, "unauthentic"),
    "PlainHttp": (403, "https-required"),
    "AddressNotAllowed": (403, "address-not-allowed"),
    "MethodNotAllowed": (405, "method-not-allowed"),
    "BodyTooSlow": (408, "body-too-slow"),
    "BodyTooLarge": (413, "body-too-large"),
    "ContentEncoded": (415, "content-encoded"),
    "Unavailable": (503, "unavailable"),
}

every_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)


def test_statuses_and_types_are_stable() -> None:
    assert {refusal.__name__: (refusal.status, refusal.slug) for refusal in REFUSALS} == STABLE


def test_every_refusal_is_listed_once() -> None:
    every = [*REFUSALS, *ELSEWHERE]
    assert set(every) == set(Refusal.__subclasses__())
    assert len({refusal.slug for refusal in every}) == len(every)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    drawn = dict(re.findall(r"── (\w+) +(\d{3}|)", errors.__doc__ or ""))
    ours = {errors.__name__, refusals.__name__}
    raised_on_purpose = {e.__name__: "" for e in JobhookError.__subclasses__() if e.__module__ in ours}
    assert drawn == raised_on_purpose | {refusal.__name__: str(refusal.status) for refusal in (*REFUSALS, *ELSEWHERE)}


@every_refusal
def test_is_rendered_as_problem_json(refusal: type[Refusal]) -> None:
    """RFC 9457; P3: nothing but what the class says, so a stranger learns nothing."""
    headers, body = refusal.response()
    assert dict(headers)[b"content-type"] == b"application/problem+json"
    assert dict(headers)[b"content-length"] == str(len(body)).encode()
    assert json.loads(body) == {
        "type": PROBLEM_TYPE_BASE + refusal.slug,
        "title": refusal.title,
        "status": refusal.status,
    }


@every_refusal
def test_the_connection_ends_where_a_body_may_be_left_unread(refusal: type[Refusal]) -> None:
    """P3: else the rest of the body would be read as the next request, or all of it for nothing."""
    after_the_body = {"Unauthentic", "Unavailable"}
    closes = (b"connection", b"close") in refusal.response()[0]
    assert closes == (refusal.__name__ not in after_the_body)


@pytest.mark.parametrize(
    ("refusal", "header"),
    [
        (refusals.Unauthentic, (b"www-authenticate", b'HMAC header="X-Signature"')),
        (refusals.MethodNotAllowed, (b"allow", b"GET, HEAD, POST")),
        (refusals.ContentEncoded, (b"accept-encoding", b"identity")),
        (refusals.Unavailable, (b"retry-after", b"5")),
    ],
    ids=["401", "405", "415", "503"],
)
def test_carries_the_header_that_goes_with_the_status(refusal: type[Refusal], header: tuple[bytes, bytes]) -> None:
    """P6: a 503 says when to send again."""
    assert header in refusal.response()[0]


def test_our_own_trouble_is_the_only_5xx_and_never_a_4xx() -> None:
    """P6: senders do not repeat what was answered with a 4xx."""
    assert [refusal for refusal in REFUSALS if refusal.status >= 500] == [refusals.Unavailable]


def _fail(message: str) -> None:
    raise json.JSONDecodeError(message, message, 0)


def test_describes_an_error_by_type_and_place_alone() -> None:
    """P7: messages of foreign errors quote payloads."""
    with pytest.raises(ValueError, match="canary") as raised:
        _fail("canary")
    described = describe(raised.value)
    assert described["error"] == "json.decoder.JSONDecodeError"
    assert described["where"].startswith(__file__)
    assert described["where"].endswith(" in _fail")
    assert "canary" not in str(described)


def test_describes_an_error_that_was_never_raised() -> None:
    """P7."""
    assert describe(KeyError("canary")) == {"error": "builtins.KeyError"}
