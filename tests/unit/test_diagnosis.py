"""From a request that is refused to the settings that accept it, or to the likeliest trouble (P10)."""

import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from app.config.settings import Settings
from app.config.sources import load_settings
from app.delivery.diagnosis import (
    TYPED,
    Diagnosis,
    Key,
    RawRequest,
    UnreadableRequest,
    diagnose,
    named,
    parse_request,
    signature_headers,
)
from app.delivery.diagnosis.contents import all_contents
from app.delivery.scheme import Scheme
from app.delivery.signature import Signer, Verifier, sign
from app.errors import BadSignature, SignatureFault
from tests.support.providers import PATH, PROVIDERS, TOO_LONG_TO_GUESS, URL, Provider

CASES = Path(__file__).parents[1] / "cases" / "signatures"
KEY = b"jso_demo_5f1c7a90b2d84e6f"
BASE64_KEY = b"YS1kZW1vLWtleS1vZi10aGlydHktdHdvLWJ5dGVzISE="
DEFAULT = Scheme()
SIGNED_AT = 1772528400.0
BODY = b'{"id": "evt_1", "type": "invoice.paid", "data": {"name": "Gr\xc3\xbc\xc3\x9fe/<b>", "total": 120.00}}'


def case(number: int) -> RawRequest:
    (file,) = CASES.glob(f"{number}-*.http")
    return parse_request(file.read_bytes())


def request(headers: dict[str, str], body: bytes = BODY, path: str = PATH) -> RawRequest:
    """As it is saved in a file."""
    lines = [f"POST {path} HTTP/1.1", "Host: hooks.example.com", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return parse_request("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)


def signed(scheme: Scheme, body: bytes = BODY, key: bytes = KEY, now: float | None = None) -> RawRequest:
    return request(Signer(key, scheme).headers(body, "POST", PATH.encode(), now=now), body)


def of(
    request: RawRequest, key: bytes = KEY, scheme: Scheme = DEFAULT, url: str = "", now: float | None = None
) -> Diagnosis:
    return diagnose(request, named([key]), scheme, url, now)


def settings_with(environment: dict[str, str], key: bytes = KEY) -> Settings:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JOBSITEON_API_KEY", key.decode())
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_settings()


def accepts(settings: Settings, request: RawRequest, now: float | None = None) -> SignatureFault | None:
    """None if a receiver with these settings accepts a request, else why not."""
    verifier = Verifier(settings.signing_keys, settings.signature_scheme)
    try:
        verifier.verify(request.all, request.body, request.method, request.path, request.query, now)
    except BadSignature as bad:
        return bad.fault
    return None


# The cases that failed


@pytest.mark.parametrize("number", range(1, 7))
def test_a_case_is_diagnosed_and_then_accepted(number: int) -> None:
    key = BASE64_KEY if number == 3 else KEY
    match = of(case(number), key).matches[0]
    settings = settings_with(match.settings, key)
    assert accepts(settings, case(number), SIGNED_AT) is None
    assert match.key == "current"
    altered = RawRequest("POST", PATH.encode(), b"", case(number).headers, case(number).body + b" ")
    assert accepts(settings, altered, SIGNED_AT) == "no key fits"


def test_only_what_has_to_differ_is_named() -> None:
    named_settings = [
        of(case(number), BASE64_KEY if number == 3 else KEY).matches[0].settings for number in range(1, 7)
    ]
    assert named_settings == [
        {"JOBHOOK_SIGNATURE_ALGORITHM": "sha1"},
        {"JOBHOOK_SIGNATURE_CONTENT": "{timestamp}.{body}", "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "X-Timestamp"},
        {"JOBHOOK_SIGNATURE_KEY_FORM": "base64"},
        {"JOBHOOK_SIGNATURE_ENCODING": "base64-of-hex"},
        {"JOBHOOK_SIGNATURE_HEADER": "X-JobsiteOn-Signature"},
        {"JOBHOOK_SIGNATURE_CONTENT": r"{body}\n"},
    ]


def test_a_body_that_was_rewritten_and_another_key_are_told_apart() -> None:
    rewritten, another = of(case(7)), of(case(8))
    assert not rewritten.matches
    assert not another.matches
    assert rewritten.causes[0].cause == "body altered"
    assert "written anew" in rewritten.causes[0].says
    assert another.causes[0].cause == "another key"
    assert "current" in another.causes[0].says


def test_an_old_request_is_said_to_be_old() -> None:
    assert "further from the clock than JOBHOOK_SIGNATURE_TOLERANCE (5m)" in of(case(2)).matches[0].says
    assert "further from" not in of(case(2), now=SIGNED_AT).matches[0].says


# The surveyed providers

GUESSED = [provider for provider in PROVIDERS if provider.name not in TOO_LONG_TO_GUESS]


@pytest.mark.parametrize("provider", GUESSED, ids=lambda provider: provider.name)
def test_a_providers_way_is_found_and_then_accepted(provider: Provider) -> None:
    """The next one too, which is another; and what is forged, altered or late is refused."""
    key = provider.configured_key.encode()
    first = request(provider.send(BODY, time.time() - 100))
    match = of(first, key, url=URL).matches[0]
    settings = settings_with(match.settings, key)
    assert accepts(settings, first) is None
    second = b'{"id": "evt_2"}'
    headers = provider.send(second, time.time())
    assert accepts(settings, request(headers, second)) is None
    assert accepts(settings, request(headers, second + b"\n")) == "no key fits"
    forger = Provider("forger", provider.headers, {}, key=b"another key, not known here")
    assert accepts(settings, request(forger.send(second, time.time()), second)) == "no key fits"
    if provider.signs_time:
        late = request(provider.send(second, time.time() - 1000), second)
        assert accepts(settings, late) == "timestamp out of tolerance"


def test_enough_are_found() -> None:
    assert len(GUESSED) >= 24


# Several deviations at once

COMBINED = {
    "key in base64, timestamp": Scheme(key_form="base64", content="{timestamp}.{body}", timestamp_header="X-Time"),
    "SHA-512, base64, id and timestamp": Scheme(
        algorithm="sha512", encoding="base64", content="{id}|{timestamp}|{body}", timestamp_header="T", id_header="X-Id"
    ),
    "key hashed, list": Scheme(key_form="sha256-hex", form="t={timestamp};s={signature}", content="{timestamp}:{body}"),
    "base64 of hex, in another header, with a newline": Scheme(
        header="X-Hook-Sig", encoding="base64-of-hex", content=r"{body}\n"
    ),
    "path": Scheme(content=r"{method}\n{path}\n{timestamp}\n{body}", timestamp_header="X-Date"),
    "version": Scheme(form="v1={signature}", content="v1:{timestamp}:{body}", timestamp_header="X-Request-Time"),
    "id alone": Scheme(content="{id}.{body}", id_header="X-Request-Id", algorithm="sha1"),
    "key's id before the signature": Scheme(header="Authorization", form="HMAC key_2024_a:{signature}", encoding="hex"),
    "time within the signature": Scheme(form="v1:{timestamp}:{signature}", content="{timestamp}.{body}"),
    "URL and timestamp": Scheme(
        content="{timestamp}{url}{body}", url=URL, timestamp_header="X-Timestamp", algorithm="sha384"
    ),
    "timestamp, newline at the end": Scheme(content=r"{timestamp}.{body}\n", timestamp_header="X-Timestamp"),
}


@pytest.mark.parametrize("scheme", COMBINED.values(), ids=COMBINED)
def test_several_deviations_are_found_together(scheme: Scheme) -> None:
    key = BASE64_KEY if scheme.key_form == "base64" else KEY
    match = of(signed(scheme, key=key), key, url=scheme.url).matches[0]
    settings = settings_with(match.settings, key)
    assert accepts(settings, signed(scheme, b"another", key)) is None


def test_a_deviation_from_other_settings_than_the_default() -> None:
    """What is set stays as it is where it is right; what is wrong is set anew, also to nothing."""
    present = Scheme(header="X-Sig", content="{timestamp}.{body}", timestamp_header="X-Time", encoding="base64")
    sender = Scheme(header="X-Sig", encoding="base64", algorithm="sha512")
    assert of(signed(sender), scheme=present).matches[0].settings == {
        "JOBHOOK_SIGNATURE_ALGORITHM": "sha512",
        "JOBHOOK_SIGNATURE_CONTENT": "{body}",
        "JOBHOOK_SIGNATURE_TIMESTAMP_HEADER": "",
    }


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ('"{}"', r"\x22{signature}\x22"),
        ("HMAC-SHA256 {}", "HMAC-SHA256 {signature}"),
        ("signature={}", "signature={signature}"),
        ("HMAC-SHA256 Credential=ab12cd34, Signature={}", "HMAC-SHA256 Credential={any}, Signature={signature}"),
        ("algorithm=HMAC-SHA256;signature={}", "signature={signature};signature={signature}"),
        ("t=1772528400,v1={}", "v1={signature},v1={signature}"),
        ("key-2024-01:{}", "{any}:{signature}"),
        ("{}:1", "{signature}:1"),
    ],
)
def test_the_form_of_the_header_is_found(value: str, form: str) -> None:
    """What differs between requests or keys is not taken for a fixed text."""
    match = of(request({"X-Signature": value.format(sign(KEY, BODY))})).matches[0]
    assert match.settings == {"JOBHOOK_SIGNATURE_FORM": form}


def test_the_url_is_guessed_from_the_request() -> None:
    match = of(signed(Scheme(content="{url}{body}", url=URL))).matches[0]
    assert match.settings["JOBHOOK_PUBLIC_URL"] == URL


def test_a_list_of_versions_is_read_as_a_list() -> None:
    """A single signature now, two of them while the sender rotates its keys."""
    headers = {"X-Signature": "v1," + sign(KEY, BODY, encoding="base64")}
    present = of(request(headers))
    assert present.matches[0].settings == {}
    match = of(request({"webhook-signature": headers["X-Signature"]})).matches[0]
    settings = settings_with(match.settings)
    two = {"webhook-signature": f"v1,{sign(b'the older key', BODY, encoding='base64')} {headers['X-Signature']}"}
    assert accepts(settings, request(two)) is None


# What the present settings say


def test_what_verifies_needs_no_setting() -> None:
    diagnosis = of(request({"X-Signature": sign(KEY, BODY)}))
    assert [(match.settings, match.key) for match in diagnosis.matches] == [({}, "current")]
    assert not diagnosis.causes


def test_which_key_signed_is_said() -> None:
    keys = named([b"the-current-key-1", b"the-previous-key", KEY])
    assert diagnose(request({"X-Signature": sign(KEY, BODY)}), keys, Scheme()).matches[0].key == "previous 2"


def test_a_key_that_was_typed_is_tried() -> None:
    keys = [*named([b"the-current-key-1"]), Key(TYPED, KEY)]
    plain = diagnose(request({"X-Signature": sign(KEY, BODY)}), keys, Scheme()).matches[0]
    other = diagnose(request({"X-Sig": sign(KEY, BODY)}), keys, Scheme()).matches[0]
    for match in (plain, other):
        assert match.key == "typed"
        assert "JOBSITEON_API_KEY" in match.says
    assert other.settings == {"JOBHOOK_SIGNATURE_HEADER": "X-Sig"}


def test_a_late_timestamp_is_told_from_a_wrong_signature() -> None:
    scheme = Scheme(content="{timestamp}.{body}", timestamp_header="X-Time")
    diagnosis = of(signed(scheme, now=time.time() - 3600), scheme=scheme)
    assert diagnosis.matches[0].settings == {}
    assert diagnosis.causes[0].cause == "timestamp out of tolerance"


# Bodies

VALUE = json.loads(BODY)
COMPACT = json.dumps(VALUE, separators=(",", ":"), ensure_ascii=False).replace("120.0", "120.00").encode()
SIGNED_BODIES: dict[str, tuple[bytes, bytes]] = {
    # what was signed, what arrived
    "compact, then spaced": (COMPACT, BODY),
    "spaced, then compact": (BODY, COMPACT),
    "sorted": (json.dumps({"a": {"b": 1, "c": 2}, "z": 0}).encode(), b'{"z": 0, "a": {"c": 2, "b": 1}}'),
    "compact and sorted": (b'{"a":1,"z":0}', b'{"z": 0, "a": 1}'),
    "escaped": (json.dumps({"name": "Grüße"}).encode(), '{"name": "Grüße"}'.encode()),
    "not escaped": ('{"name":"Grüße"}'.encode(), json.dumps({"name": "Grüße"}).encode()),
    "an emoji, escaped": (json.dumps({"name": "🔧"}, separators=(",", ":")).encode(), '{"name":"🔧"}'.encode()),
    "slashes escaped": (rb'{"url":"https:\/\/a.test\/b"}', b'{"url":"https://a.test/b"}'),
    "slashes not escaped": (b'{"url":"https://a.test/b"}', rb'{"url":"https:\/\/a.test\/b"}'),
    "HTML escaped": (rb'{"a":"\u003cb\u003e"}', b'{"a":"<b>"}'),
    "indented by 2": (b'{\n  "a": 1\n}', b'{"a":1}'),
    "indented by 4, newline": (b'{\n    "a": [\n        1\n    ]\n}\n', b'{"a": [1]}'),
    "decimals": (b'{"total":120.00}', b'{"total": 120.00}'),
    "decimals written anew": (b'{"total":120.0}', b'{"total": 120.00}'),
    "decimals by JavaScript": (b'{"total":120}', b'{"total":120.0}'),
    "final newline taken": (b"text", b"text\n"),
    "LF to CRLF": (b"a\nb\nc", b"a\r\nb\r\nc"),
    "CRLF to LF": (b"a\r\nb\r\nc", b"a\nb\nc"),
    "BOM taken away": (b'\xef\xbb\xbf{"a":1}', b'{"a": 1}'),
    "BOM put before": (b'{"a":1}', b'\xef\xbb\xbf{"a":1}'),
    "Latin-1 to UTF-8": ("Grüße".encode("latin-1"), "Grüße".encode()),
    "UTF-8 to Latin-1": ("Grüße".encode(), "Grüße".encode("latin-1")),
    "UTF-8 encoded twice": ("Grüße".encode(), "Grüße".encode().decode("latin-1").encode()),
    "compressed": (b'{"a":1}', gzip.compress(b'{"a":1}')),
    "decompressed": (gzip.compress(b'{"a":1}', mtime=0), b'{"a":1}'),
    "out of a form": (b"payload=" + quote_plus('{"a":1}').encode(), b'{"a":1}'),
    "not signed at all": (b"", b'{"a":1}'),
}


@pytest.mark.parametrize(("was", "arrived"), SIGNED_BODIES.values(), ids=SIGNED_BODIES)
def test_a_body_that_changed_on_its_way_is_recognised(was: bytes, arrived: bytes) -> None:
    """And is not accepted by anything that is named: it is not what was signed."""
    diagnosis = of(request({"X-Signature": sign(KEY, was)}, arrived))
    if was == b"\xef\xbb\xbf" + arrived:
        pytest.fail("that is a content, not a change")
    assert [cause.cause for cause in diagnosis.causes] == ["body altered"]
    assert not diagnosis.matches


def test_a_changed_body_is_recognised_under_a_timestamp_and_another_key_form() -> None:
    scheme = Scheme(content="{timestamp}.{body}", timestamp_header="X-Time", key_form="base64")
    headers = Signer(BASE64_KEY, scheme).headers(COMPACT)
    assert of(request(headers, BODY), BASE64_KEY).causes[0].cause == "body altered"


def test_what_stands_before_or_after_the_body_can_be_set() -> None:
    for made, content in ((b"\xef\xbb\xbf" + BODY, r"\ufeff{body}"), (BODY + b"\r\n", r"{body}\r\n")):
        match = of(request({"X-Signature": sign(KEY, made)})).matches[0]
        assert match.settings == {"JOBHOOK_SIGNATURE_CONTENT": content}
        assert accepts(settings_with(match.settings), request({"X-Signature": sign(KEY, made)})) is None


# Keys

TWISTED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "newline": (lambda key: key + b"\n", "newline"),
    "CRLF": (lambda key: key + b"\r\n", "newline"),
    "blank after": (lambda key: key + b" ", "blank"),
    "blank before": (lambda key: b" " + key, "blank"),
    "double quotes": (lambda key: b'"' + key + b'"', "quotes"),
    "single quotes": (lambda key: b"'" + key + b"'", "quotes"),
    "BOM": (lambda key: b"\xef\xbb\xbf" + key, "BOM"),
    "Bearer": (lambda key: b"Bearer " + key, "Bearer"),
}
"""How a key may be mispasted, and the word that names it."""


@pytest.mark.parametrize(("twist", "word"), TWISTED.values(), ids=TWISTED)
def test_a_mispasted_key_is_recognised(twist: Callable[[bytes], bytes], word: str) -> None:
    """Whichever side has pasted it so."""
    theirs = of(request({"X-Signature": sign(twist(KEY), BODY)}))
    assert theirs.causes[0].cause == "key mispasted"
    assert word in theirs.causes[0].says
    ours = of(request({"X-Signature": sign(KEY, BODY)}), twist(KEY))
    assert ours.causes[0].cause == "key mispasted"
    assert "current, without" in ours.matches[0].key


def test_white_space_that_the_sender_pasted_can_be_set_in_base64() -> None:
    theirs = KEY + b"\n"
    sent = request({"X-Signature": sign(theirs, BODY)})
    assert "JOBHOOK_SIGNATURE_KEY_FORM=base64" in of(sent).matches[0].says
    settings = settings_with({"JOBHOOK_SIGNATURE_KEY_FORM": "base64"}, base64.b64encode(theirs))
    assert accepts(settings, sent) is None


def test_a_mispasted_key_is_recognised_under_a_timestamp() -> None:
    scheme = Scheme(content="{timestamp}.{body}", timestamp_header="X-Time")
    assert of(signed(scheme, key=KEY + b"\n")).causes[0].cause == "key mispasted"


# Other causes


def test_no_signature_at_all() -> None:
    for headers in ({}, {"X-Request-Id": "0" * 32}, {"X-Signature": "Bearer abc"}, {"X-Signature": ""}):
        diagnosis = of(request(headers))
        assert [cause.cause for cause in diagnosis.causes] == ["no signature"]


def test_a_repeated_header() -> None:
    value = sign(KEY, BODY).encode()
    twice = RawRequest("POST", PATH.encode(), b"", (("X-Signature", value), ("X-Signature", value)), BODY)
    diagnosis = of(twice)
    assert diagnosis.causes[0].cause == "header repeated"
    assert not diagnosis.matches


def test_hashes_that_are_not_accepted() -> None:
    weak = of(request({"X-Signature": hmac.new(KEY, BODY, hashlib.md5).hexdigest()}))
    assert [cause.cause for cause in weak.causes] == ["weak hash"]
    unkeyed = of(request({"X-Signature": hashlib.sha256(KEY + BODY).hexdigest()}))
    assert [cause.cause for cause in unkeyed.causes] == ["not an HMAC"]
    cut = of(request({"X-Signature": sign(KEY, BODY)[:40]}))
    assert [cause.cause for cause in cut.causes] == ["not an HMAC"]
    assert "cut off after 20 of its 32 bytes" in cut.causes[0].says
    assert not cut.matches
    assert not weak.matches
    assert not unkeyed.matches


def test_a_checksum_beside_the_signature_tells_that_the_body_is_intact() -> None:
    headers = {
        "Content-MD5": hashlib.md5(BODY, usedforsecurity=False).hexdigest(),
        "X-Signature": sign(b"another key", BODY),
    }
    assert "body is not the trouble" in of(request(headers)).causes[0].says


def test_a_sha1_by_another_key_is_said_to_look_like_one() -> None:
    assert "looks like SHA-1" in of(request({"X-Signature": "ab" * 20})).causes[0].says


def test_an_empty_and_a_cut_body() -> None:
    assert of(request({"X-Signature": sign(KEY, BODY)}, b"")).causes[0].cause == "empty body"
    cut = parse_request(
        f"POST / HTTP/1.1\nX-Signature: {sign(KEY, BODY)}\nContent-Length: {len(BODY)}\n\n".encode() + BODY[:30]
    )
    assert of(cut).causes[0].cause == "request incomplete"


def test_a_large_body_is_diagnosed_within_bounds() -> None:
    body = json.dumps({"note": "x" * 1024**2}).encode()
    scheme = Scheme(algorithm="sha512", content="{timestamp}.{body}", timestamp_header="X-Time")
    assert of(signed(scheme, body)).matches
    assert [cause.cause for cause in of(signed(scheme, body, b"another")).causes][-1] == "large request"


def test_the_names_of_headers_that_look_like_signatures() -> None:
    """For whoever looks at a rejected delivery: by name and length, without trying a key."""
    headers = {"X-Other-Sign": "sha1=" + "0" * 40, "X-Trace": "0" * 32, "X-Signature-Version": "1"}
    assert signature_headers(request(headers)) == ["X-Other-Sign"]


# Nothing secret is said


def secrets(body: bytes, key: bytes) -> Iterable[str]:
    yield key.decode()
    yield "canary"
    for algorithm in ("sha1", "sha256"):
        for encoding in ("hex", "base64"):
            yield sign(key, body, algorithm, encoding)


@pytest.mark.parametrize("signed_with", [KEY, b"another key", KEY + b"\n", b'"' + KEY + b'"'])
@pytest.mark.parametrize("header", ["X-Signature", "X-Sig"])
def test_no_key_no_mac_and_no_payload_is_said(signed_with: bytes, header: str) -> None:
    """P7."""
    body = b'{"canary": "canary"}'
    headers = {header: sign(signed_with, body, "sha1"), "Authorization": "Bearer canary", "X-Canary-Id": "1"}
    said = json.dumps(asdict(of(request(headers, body))))
    assert not [secret for secret in secrets(body, KEY) if secret in said]


# Request files

LINES = [
    b"POST /hook?x=1 HTTP/1.1",
    b"Host: a.test",
    b"X-Signature:  abc ",
    b"x-folded: a",
    b"  b",
    b"Content-Length: 7",
]


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("after", [b"", b"\n", b"\r\nmore"], ids=repr)
def test_reads_a_request(end: bytes, after: bytes) -> None:
    read = parse_request(end.join([*LINES, b"", b'{"n":1}']) + after)
    assert (read.method, read.path, read.query, read.target) == ("POST", b"/hook", b"x=1", b"/hook?x=1")
    assert read.all(b"x-signature") == [b"abc"]
    assert read.all(b"x-folded") == [b"a b"]
    assert (read.body, read.complete) == (b'{"n":1}', True)


def test_a_body_is_read_without_a_length_or_with_a_wrong_one() -> None:
    assert parse_request(b"POST / HTTP/1.1\n\na\n\nb\n").body == b"a\n\nb\n"
    short = parse_request(b"POST / HTTP/1.1\nContent-Length: 9\n\nab")
    assert (short.body, short.complete) == (b"ab", False)
    assert parse_request(b"POST / HTTP/1.1\nContent-Length: x\n\nab").body == b"ab"
    assert parse_request(b"POST / HTTP/1.1\nHost: a").body == b""


def test_a_newline_that_an_editor_has_added_is_no_trouble() -> None:
    """Without a Content-Length, nothing tells whether it was sent."""
    for end, header in ((b"\n", "X-Sig"), (b"\r\n", "X-Signature")):
        saved = parse_request(f"POST / HTTP/1.1\n{header}: {sign(KEY, BODY)}\n\n".encode() + BODY + end)
        assert [cause.cause for cause in of(saved).causes] == []
        assert list(of(saved).matches[0].settings) == ([] if header == "X-Signature" else ["JOBHOOK_SIGNATURE_HEADER"])


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_chunks_are_joined(end: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"3;ext=1" + end + b"abc" + end + b"A" + end + b"0123456789" + end + b"0" + end + end
    assert parse_request(head + chunks).body == b"abc0123456789"
    assert parse_request(head + b"not in chunks").body == b"not in chunks"


def test_an_absolute_target_and_leading_lines() -> None:
    read = parse_request(b"\xef\xbb\xbf\r\n\nPOST https://a.test/b?c HTTP/2\nA: b\n\n")
    assert (read.path, read.query) == (b"/b", b"c")


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"a": 1}\n', b"HTTP/1.1 200 OK\n\n", b"POST / HTTP/1.1\nno header here\n\n"], ids=repr
)
def test_what_is_no_request_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(UnreadableRequest):
        parse_request(raw)


def test_says_which_line_is_no_header() -> None:
    with pytest.raises(UnreadableRequest, match="line 3"):
        parse_request(b"POST / HTTP/1.1\nA: b\nwithout colon\n\n")


def test_what_is_signed_may_end_with_a_newline_that_the_body_has_not() -> None:
    for content in ("{path}{body}\\n", "{timestamp}:{body}\\r\\n"):
        assert content in all_contents()
    assert "{id}.{timestamp}.{body}\\n" not in all_contents(), "there are too many of three parts"
