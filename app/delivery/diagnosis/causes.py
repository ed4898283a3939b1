"""The likeliest trouble with a signature, in plain words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.delivery.diagnosis.clues import Mac
from app.delivery.diagnosis.keys import Key
from app.delivery.diagnosis.request import RawRequest
from app.delivery.diagnosis.search import BODY_HASH, Found, Search
from app.delivery.scheme import ALGORITHMS, BODY, Scheme, setting
from app.errors import SignatureFault
from app.units import format_duration

HASH_NAMES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that keeps the signature from verifying."""

    cause: str
    """In a word or two, from a fixed list."""
    says: str


def causes(
    request: RawRequest, keys: Sequence[Key], scheme: Scheme, search: Search, found: Sequence[Found], matched: bool
) -> Iterator[Cause]:
    """What keeps a signature from verifying, given what a search has found and whether settings can mend it."""
    if len(request.all(scheme.header.lower().encode())) > 1:
        yield Cause(
            "header repeated",
            f"The request has the header {scheme.header} more than once. Jobhook refuses that, because nothing "
            "tells which of them counts. Look for a proxy that adds a second one.",
        )
    if found:
        yield from _found_causes(found[0], matched)
        return
    refused = list(search.refused())
    checksums = {mac.header for mac, words in refused if words == BODY_HASH}
    for mac, words in refused:
        if mac.header not in checksums:
            yield Cause(
                "not an HMAC",
                f"{mac.header} holds {words}, not a whole HMAC. It cannot be accepted: whoever sees such a hash could "
                "continue it or guess at it. Ask the sender for an HMAC with SHA-256.",
            )
            return
    suspects = [
        mac
        for mac in search.macs
        if (mac.is_named or mac.header.lower() == scheme.header.lower()) and mac.header not in checksums
    ]
    if not suspects:
        yield _no_signature(request, scheme)
        return
    yield from _nothing_fits(request, keys, search, suspects, bool(checksums))


def _found_causes(found: Found, matched: bool) -> Iterator[Cause]:
    key = found.material.key
    if found.altered:
        yield Cause("body altered", _altered_says(found))
    if key.twist:
        yield Cause(
            "key mispasted",
            f"The signature fits the {key.name} key {key.twist}. Look how the key was pasted, here and at the sender.",
        )
    if found.mac.hash not in ALGORITHMS:
        yield Cause(
            "weak hash",
            f"The signature is an HMAC-{HASH_NAMES[found.mac.hash]} with the {key.name} key. Jobhook does not accept "
            "that: ask the sender for SHA-256.",
        )
    elif not matched and not found.altered:
        yield Cause(
            "unreadable form",
            f"The {key.name} key made the MAC in {found.mac.header}, but no settings can read the header as it is "
            "written. Set the form by hand: see JOBHOOK_SIGNATURE_FORM.",
        )


def _altered_says(found: Found) -> str:
    altered = found.altered
    assert altered is not None  # noqa: S101 - the caller has looked
    also = "" if found.content == BODY else f" What is signed is `{found.content}`."
    change = "was written anew (parsed and re-serialised)" if altered.rewritten else "was changed"
    return (
        f"The signature fits the {found.material.key.name} key and the body as it was before: {altered.how}.{also} So "
        f"the body {change} after it was signed, and no setting can accept it: what arrives is not what was signed. "
        "Look for a proxy, a gateway or middleware that parses and rewrites the body, or changes its encoding, and "
        "make it pass the bytes on as they are. If the sender itself does it, only the sender can mend it."
    )


def _no_signature(request: RawRequest, scheme: Scheme) -> Cause:
    values = request.all(scheme.header.lower().encode())
    if values:
        return Cause(
            "no signature",
            f"{scheme.header} is there, with {len(values[0])} characters, but it holds nothing that is as long as an "
            "HMAC in hex or base64. Is it a token, or a signature with a public key?",
        )
    return Cause(
        "no signature",
        f"The request has no header {scheme.header}, and no other that holds an HMAC. Is signing switched on "
        "at the sender, and does every proxy pass the header on? A test with curl or a browser has none: use "
        "`jobhook send`.",
    )


def _nothing_fits(
    request: RawRequest, keys: Sequence[Key], search: Search, suspects: Sequence[Mac], checked: bool
) -> Iterator[Cause]:
    looks = ", ".join(
        dict.fromkeys(f"{mac.header} ({len(mac.mac)} bytes: looks like {HASH_NAMES[mac.hash]})" for mac in suspects)
    )
    if not request.body:
        yield Cause(
            "empty body",
            "The request has no body. If the sender sent one, it was lost on its way, as in a redirect, or not saved.",
        )
    elif not request.complete:
        yield Cause(
            "request incomplete",
            "The body is not as long as the request says: it was saved in part, or its line ends were changed. Save it "
            "again, byte by byte.",
        )
    names = ", ".join(dict.fromkeys(key.name for key in keys))
    intact = " The body is not the trouble: a plain hash of it in the request fits." if checked else ""
    yield Cause(
        "another key",
        f"None of the keys tried ({names}) made the MAC in {looks}, whatever was tried: {search.tried:,} ways. Most "
        "likely another key signs: that of another endpoint or account, a test key, or one from before a rotation or "
        f"after it.{intact} Compare with the sender's settings; `--key-prompt` tries a key that you type.",
    )
    if not checked:
        yield Cause(
            "unknown scheme",
            "Less likely, the key is right and something is signed that was not tried: a field of the payload, another "
            "URL (`--url`), a header of its own, or content that was changed in an unusual way.",
        )
    if search.is_cut:
        yield Cause(
            "large request",
            "Not everything was tried: the body is large, or many headers could be a signed time or id. Diagnose a "
            "smaller request, such as a test event.",
        )


def late(scheme: Scheme, fault: SignatureFault) -> Cause:
    """That a signature verifies, but for its timestamp."""
    if fault == "unreadable timestamp":
        return Cause(fault, "The signature verifies, but its timestamp cannot be read as a time.")
    return Cause(
        fault,
        f"The signature verifies, but its timestamp differs from the clock by more than {setting('tolerance')} "
        f"({format_duration(scheme.tolerance)}). An old request saved in a file always does. If new ones do, look at "
        "this machine's clock; if only retries do, raise the tolerance to the time over which the sender retries.",
    )
