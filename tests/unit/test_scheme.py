"""How a scheme is read: its templates, the form of its header, its keys and times; and what contradicts itself."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.names import variable
from app.delivery.form import MAX_LIST_PARTS
from app.delivery.scheme import (
    CONTENT_NAMES,
    KeyForm,
    Scheme,
    SchemeError,
    decode_base64,
    escaped,
    read_time,
    setting,
    tokens,
)
from app.delivery.signature import Signer, Verifier
from app.errors import BadSignature, SignatureFault

KEY = b"jso_demo_5f1c7a90b2d84e6f"
OLD_KEY = b"jso_demo_0000000000000000"
BODY = b'{"n":1}'
NOW = 1_772_528_400.0
HEX = hmac.new(KEY, BODY, hashlib.sha256).hexdigest()
TIMED = Scheme(form="t={timestamp},v1={signature}", content="{timestamp}.{body}")
WITH_ID = Scheme(content="{id}.{timestamp}.{body}", id_header="X-Id", timestamp_header="X-Time")


def mac(content: bytes, key: bytes = KEY) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def verify(
    scheme: Scheme,
    headers: Mapping[str, str | Sequence[str]],
    body: bytes = BODY,
    keys: Sequence[bytes] = (KEY,),
    now: float = NOW,
) -> int | SignatureFault:
    """The index of the key, or why there is none."""
    values = {
        name.lower().encode(): [one.encode() for one in ([value] if isinstance(value, str) else value)]
        for name, value in headers.items()
    }
    try:
        return Verifier(keys, scheme).verify(lambda name: values.get(name, []), body, "POST", b"/hook", b"a=b", now)
    except BadSignature as bad:
        return bad.fault


# Names


def test_each_field_is_a_setting() -> None:
    """Diagnosis names settings by the fields of a scheme."""
    settings = {"url": "public_url"} | {
        field.name: f"signature_{field.name}" for field in fields(Scheme) if field.name != "url"
    }
    assert {field: setting(field) for field in settings} == {field: variable(name) for field, name in settings.items()}


# Templates


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{body}", ["body"]),
        ("v0:{timestamp}:{body}", [b"v0:", "timestamp", b":", "body"]),
        (r"{method}\n{path}\r\n\t\\{body}", ["method", b"\n", "path", b"\r\n\t\\", "body"]),
        (r"\x00\xff\ufeff{body}", [b"\x00\xff\xef\xbb\xbf", "body"]),
        ("{{{body}}}", [b"{", "body", b"}"]),
        ("{body}\n", ["body", b"\n"]),
        ("ü{body}", ["ü".encode(), "body"]),
    ],
)
def test_reads_a_template(template: str, parts: list[bytes | str]) -> None:
    assert tokens("content", template, CONTENT_NAMES) == parts


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{boddy}", "{boddy} is not known here; what is known: {body}, {timestamp}"),
        ("{body", "stray brace"),
        ("body}", "stray brace"),
        ("{}{body}", "stray brace"),
        (r"{body}\q", "stray brace or backslash"),
        ("{body}\\", "stray brace or backslash"),
        ("{timestamp}", "must name {body}"),
        ("", "must name {body}"),
    ],
)
def test_says_what_is_wrong_with_a_template(template: str, problem: str) -> None:
    with pytest.raises(SchemeError, match=r"^JOBHOOK_SIGNATURE_CONTENT: ") as raised:
        Verifier((KEY,), Scheme(content=template))
    assert problem in str(raised.value)


@given(st.binary())
def test_any_text_can_be_written_in_a_template(text: bytes) -> None:
    assert tokens("content", escaped(text) + "{body}", CONTENT_NAMES) == [*([text] if text else []), "body"]


# What is signed


@pytest.mark.parametrize(
    ("content", "signed"),
    [
        ("{method}{path}{body}", b"POST/hook?a=b" + BODY),
        (r"{path}\n{body}\n", b"/hook?a=b\n" + BODY + b"\n"),
        ("{body}{url}", BODY + b"https://a.test/hook"),
        ("{body}{body}", BODY + BODY),
    ],
)
def test_content_is_composed(content: str, signed: bytes) -> None:
    scheme = Scheme(content=content, url="https://a.test/hook")
    assert verify(scheme, {"X-Signature": mac(signed)}) == 0
    assert verify(scheme, {"X-Signature": mac(signed)}, BODY + b" ") == "no key fits"


# Forms


def timed(*parts: str, now: float = NOW) -> str:
    return ",".join([f"t={now:.0f}", *parts])


GOOD, BAD = mac(b"1772528400." + BODY), "0" * 64
LISTS = {
    "as it is written": (timed(f"v1={GOOD}"), 0),
    "in another order": (f"v1={GOOD},t=1772528400", 0),
    "with blanks": (f"t=1772528400, v1={GOOD}", 0),
    "unknown parts": (f"t=1772528400,v0={BAD},v1={GOOD},x", 0),
    "several signatures": (timed(f"v1={BAD}", f"v1={GOOD}"), 0),
    "no good one": (timed(f"v1={BAD}", f"v1={BAD}"), "no key fits"),
    "the signature under another name": (timed(f"v0={GOOD}"), "malformed header"),
    "two timestamps": (f"t=1772528400,t=1772528401,v1={GOOD}", "malformed header"),
    "the same timestamp twice": (f"t=1772528400,t=1772528400,v1={GOOD}", "malformed header"),
    "no timestamp": (f"v1={mac(b'.' + BODY)}", "no timestamp"),
    "an empty timestamp": (f"t=,v1={mac(b'.' + BODY)}", "no timestamp"),
    "another hash": (timed("v1=" + "0" * 40), "looks like SHA-1"),
    "too many parts": (timed(*[f"v1={BAD}"] * MAX_LIST_PARTS, f"v1={GOOD}"), "malformed header"),
    "too long": (timed("x" * 5000, f"v1={GOOD}"), "malformed header"),
    "nothing": ("", "malformed header"),
}


@pytest.mark.parametrize(("value", "result"), LISTS.values(), ids=LISTS)
def test_reads_a_list(value: str, result: int | SignatureFault) -> None:
    """P3: bounded, and no way to choose between two timestamps."""
    assert verify(TIMED, {"X-Signature": value}) == result


def test_the_current_key_is_named_when_several_have_signed() -> None:
    scheme = Scheme(form="v1={signature} v1={signature}")
    both = f"v1={mac(BODY, OLD_KEY)} v1={HEX}"
    assert verify(scheme, {"X-Signature": both}, keys=(KEY, OLD_KEY)) == 0
    assert verify(scheme, {"X-Signature": both}, keys=(b"another key", OLD_KEY)) == 1


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("{signature}", HEX),
        ("sha256={signature}", f"sha256={HEX}"),
        ("SHA256={signature}", f"sha256={HEX}"),
        ("HMAC {any}:{signature}", f"HMAC key-2024:{HEX}"),
        ('keyId="{any}",signature="{signature}"', f'keyId="a",signature="{HEX}"'),
        ("{signature};{any}", f"{HEX};v=1"),
        ("v1,{signature} v1,{signature}", f"v1,{HEX}"),
        ("v1={signature},v2={signature}", f"v2={HEX},v3=x"),
        ("a.b+c({signature})", f"a.b+c({HEX})"),
    ],
)
def test_reads_a_form(form: str, value: str) -> None:
    scheme = Scheme(form=form)
    assert verify(scheme, {"X-Signature": value}) == 0
    assert verify(scheme, {"X-Signature": f"x{value}x"}) in {"malformed header", "looks like SHA-256"}
    assert verify(scheme, Signer(KEY, scheme).headers(BODY)) == 0


def test_a_set_form_takes_no_other_prefix() -> None:
    assert verify(Scheme(form="{signature}"), {"X-Signature": f"sha256={HEX}"}) == "malformed header"
    assert verify(Scheme(form="v0={signature}"), {"X-Signature": HEX}) == "malformed header"


@pytest.mark.parametrize("form", ["{timestamp}:{signature}", "{timestamp}.{signature}", "{timestamp}-{signature}"])
def test_a_timestamp_within_the_value(form: str) -> None:
    scheme = replace(TIMED, form=form)
    assert verify(scheme, Signer(KEY, scheme).headers(BODY, now=NOW)) == 0


# Times

TIMES = {
    "1772528400": NOW,
    "1772528400.25": NOW + 0.25,
    "1772528400250": NOW + 0.25,
    "1772528400250000": NOW + 0.25,
    "1772528400250000000": NOW + 0.25,
    "2026-03-03T09:00:00Z": NOW,
    "2026-03-03T10:00:00+01:00": NOW,
    "2026-03-03T09:00:00": NOW,
    "2026-03-03T09:00:00.250Z": NOW + 0.25,
    "2026-03-03T09:00:00.616329898Z": NOW + 0.616329,
    "Tue, 03 Mar 2026 09:00:00 GMT": NOW,
}


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_reads_a_time(text: str, seconds: float) -> None:
    assert read_time(text.encode()) == pytest.approx(seconds)
    assert (
        verify(
            Scheme(content="{timestamp}{body}", timestamp_header="X-Time"),
            {"X-Time": text, "X-Signature": mac(text.encode() + BODY)},
        )
        == 0
    )


@pytest.mark.parametrize(
    "text", [b"", b"now", b"12", b"-1772528400", b"1e9", b"inf", b"nan", b"\xff", b",", b"2026-99-99", b"9" * 20]
)
def test_what_is_no_time(text: bytes) -> None:
    assert read_time(text) is None


@given(st.binary(max_size=50))
def test_no_text_breaks_the_reading_of_a_time(text: bytes) -> None:
    read_time(text)


@pytest.mark.parametrize(
    ("age", "result"), [(300, 0), (-300, 0), (301, "timestamp out of tolerance"), (-301, "timestamp out of tolerance")]
)
def test_a_timestamp_has_to_be_near(age: float, result: object) -> None:
    """P3: what somebody has captured is worth nothing five minutes later."""
    assert verify(TIMED, {"X-Signature": timed(f"v1={GOOD}")}, now=NOW + age) == result
    wider = replace(TIMED, tolerance=400.0)
    assert verify(wider, {"X-Signature": timed(f"v1={GOOD}")}, now=NOW + age) == 0


def test_the_time_is_looked_at_after_the_mac() -> None:
    """P3: else a stranger could learn the clock and the tolerance."""
    assert verify(TIMED, {"X-Signature": timed(f"v1={BAD}")}, now=NOW + 10_000) == "no key fits"
    untold = Scheme(content="{timestamp}.{body}", timestamp_header="X-Time")
    assert verify(untold, {"X-Time": "soon", "X-Signature": BAD}) == "no key fits"
    assert verify(untold, {"X-Time": "soon", "X-Signature": mac(b"soon." + BODY)}) == "unreadable timestamp"


def test_without_a_time_given_the_clock_is_asked() -> None:
    headers = {name.lower().encode(): [value.encode()] for name, value in Signer(KEY, TIMED).headers(BODY).items()}
    assert Verifier((KEY,), TIMED).verify(lambda name: headers.get(name, []), BODY) == 0
    late = {b"x-signature": [timed(f"v1={mac(b'1772528400.' + BODY)}").encode()]}
    assert abs(time.time() - NOW) > TIMED.tolerance
    with pytest.raises(BadSignature, match="timestamp out of tolerance"):
        Verifier((KEY,), TIMED).verify(lambda name: late.get(name, []), BODY)


def test_a_timestamp_cannot_be_moved_into_the_body() -> None:
    """P3: without its timestamp, what was signed would else pass as another body, at any time."""
    scheme = Scheme(content="{timestamp}{body}", timestamp_header="X-Time")
    signature = mac(b"1772528400" + BODY)
    assert verify(scheme, {"X-Time": "1772528400", "X-Signature": signature}) == 0
    moved = b"1772528400" + BODY
    assert verify(scheme, {"X-Signature": signature}, moved, now=NOW + 9999) == "no timestamp"
    assert verify(scheme, {"X-Time": "", "X-Signature": signature}, moved) == "ambiguous body"
    parted = Scheme(content="{timestamp}.{body}", timestamp_header="X-Time")
    assert verify(parted, {"X-Time": "", "X-Signature": mac(b"." + BODY)}) == "unreadable timestamp"


# Ids


def with_id(id: str, body: bytes = BODY, signed: bytes | None = None) -> dict[str, str | Sequence[str]]:
    signed = f"{id}.{NOW:.0f}.".encode() + body if signed is None else signed
    return {"X-Id": id, "X-Time": f"{NOW:.0f}", "X-Signature": mac(signed)}


def test_an_id_is_signed() -> None:
    assert verify(WITH_ID, with_id("msg_1")) == 0
    assert verify(WITH_ID, with_id("msg_2", signed=b"msg_1.1772528400." + BODY)) == "no key fits"
    assert verify(WITH_ID, {name: value for name, value in with_id("a").items() if name != "X-Id"}) == "no id"
    assert verify(WITH_ID, with_id("a") | {"X-Id": ["a", "a"]}) == "two headers"
    assert verify(WITH_ID, with_id("a") | {"X-Time": ["1", "1"]}) == "two headers"


@pytest.mark.parametrize("id", ["", " ", "a b", 'a{"', "a.b", "x" * 257, "é"])
def test_an_id_that_could_be_more_than_an_id_is_refused(id: str) -> None:
    """P3: bytes moved between the id and what follows it would leave what is signed the same."""
    assert verify(WITH_ID, with_id(id)) == "unusable id"


@pytest.mark.parametrize(("time", "moved"), [("1772528400123", 3), ("1772528400.5", 2), ("1772528400", 0)])
def test_digits_cannot_be_moved_from_a_timestamp_into_the_body(time: str, moved: int) -> None:
    """P3: where nothing parts them, what is signed stays the same, and the time stays near."""
    scheme = Scheme(content="{timestamp}{body}", timestamp_header="X-Time")
    signature = mac(time.encode() + BODY)
    kept, body = time[: len(time) - moved], time[len(time) - moved :].encode() + BODY
    result = verify(scheme, {"X-Time": kept, "X-Signature": signature}, body)
    assert result == ("ambiguous body" if moved else 0)


def test_letters_cannot_be_moved_from_an_id_into_the_body() -> None:
    """P3."""
    scheme = Scheme(content="{id}{body}", id_header="X-Id")
    assert verify(scheme, {"X-Id": "msg_1", "X-Signature": mac(b"msg_1" + BODY)}) == 0
    assert verify(scheme, {"X-Id": "msg_", "X-Signature": mac(b"msg_1" + BODY)}, b"1" + BODY) == "ambiguous body"


# Keys

SECRET = b"a-demo-key-of-thirty-two-bytes!!"
KEY_FORMS: list[tuple[KeyForm, bytes, bytes]] = [
    ("text", SECRET, SECRET),
    ("hex", SECRET.hex().encode(), SECRET),
    ("hex", SECRET.hex().upper().encode(), SECRET),
    ("base64", base64.b64encode(SECRET), SECRET),
    ("base64", base64.b64encode(SECRET).rstrip(b"="), SECRET),
    ("base64", base64.urlsafe_b64encode(b"\xfb" * 30), b"\xfb" * 30),
    ("base64", b"whsec_" + base64.b64encode(SECRET), SECRET),
    ("sha1", SECRET, hashlib.sha1(SECRET, usedforsecurity=False).digest()),
    ("sha256", SECRET, hashlib.sha256(SECRET).digest()),
    ("sha512", SECRET, hashlib.sha512(SECRET).digest()),
    ("sha1-hex", SECRET, hashlib.sha1(SECRET, usedforsecurity=False).hexdigest().encode()),
    ("sha256-hex", SECRET, hashlib.sha256(SECRET).hexdigest().encode()),
    ("sha512-hex", SECRET, hashlib.sha512(SECRET).hexdigest().encode()),
]


@pytest.mark.parametrize(("form", "configured", "used"), KEY_FORMS)
def test_a_key_becomes_bytes(form: KeyForm, configured: bytes, used: bytes) -> None:
    assert verify(Scheme(key_form=form), {"X-Signature": mac(BODY, used)}, keys=(configured,)) == 0


@pytest.mark.parametrize(
    ("form", "key"), [("hex", b"xyz"), ("hex", b"abc"), ("base64", b"a-b!"), ("base64", b"whsec_")]
)
def test_a_key_that_has_not_the_form_is_refused(form: KeyForm, key: bytes) -> None:
    """P7: without being quoted."""
    with pytest.raises(ValueError, match=f"cannot be read as {form}") as raised:
        Verifier((key,), Scheme(key_form=form))
    assert key.decode() not in str(raised.value)


@given(st.binary())
def test_base64_is_read_in_one_way_only(data: bytes) -> None:
    text = base64.b64encode(data)
    assert decode_base64(text) == decode_base64(text.rstrip(b"=")) == data
    assert decode_base64(base64.urlsafe_b64encode(data)) == data


# Signing


@given(
    st.sampled_from([Scheme(), TIMED, WITH_ID, Scheme(form="v1,{signature} v1,{signature}", encoding="base64")]),
    st.binary(max_size=100),
)
def test_what_is_signed_is_verified(scheme: Scheme, body: bytes) -> None:
    headers = Signer(KEY, scheme).headers(body, "POST", b"/hook", b"a=b", NOW)
    assert verify(scheme, headers, body) == 0


def test_each_delivery_has_an_id_of_its_own() -> None:
    signer = Signer(KEY, WITH_ID)
    assert signer.headers(BODY)["X-Id"] != signer.headers(BODY)["X-Id"]
