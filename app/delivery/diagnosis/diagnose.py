"""From what a search has found to settings that accept the request."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from app.delivery.diagnosis.causes import HASH_NAMES, Cause, causes, late
from app.delivery.diagnosis.clues import Clue, Mac, forms
from app.delivery.diagnosis.keys import TYPED, Key
from app.delivery.diagnosis.request import RawRequest
from app.delivery.diagnosis.search import Found, Search
from app.delivery.scheme import ALGORITHMS, AUTO_FORM, BODY, TOLERANCE_SECONDS, Scheme, read_time, setting
from app.delivery.signature import Verifier
from app.errors import BadSignature, SignatureFault
from app.units import format_duration

_KEY_FORMS = {"text": "used as it is written", "hex": "decoded from hex", "base64": "decoded from base64"}
_LATE: tuple[SignatureFault, ...] = ("timestamp out of tolerance", "unreadable timestamp")


@dataclass(frozen=True, slots=True)
class Match:
    """Settings with which the signature of the request verifies."""

    settings: dict[str, str]
    """Environment variables: those that have to differ from the present ones. An empty text: it has to be removed."""
    key: str
    """The name of the key that signed, such as `current`, and how it was used if not as configured."""
    says: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of a request's signature; the best and the likeliest first."""

    matches: tuple[Match, ...]
    causes: tuple[Cause, ...]


def diagnose(
    request: RawRequest, keys: Sequence[Key], scheme: Scheme, url: str = "", now: float | None = None
) -> Diagnosis:
    """Finds out how a request was signed.

    `keys` are those that may have signed it (`named` names the configured ones), `scheme` is the present one, `url` is
    the public one of the webhook, if it is known, and `now` is when the request came, if not just now.
    """
    for key in keys:
        fault = _fault(request, key, scheme, now)
        if fault is None or fault in _LATE:
            present = Match({}, key.name, "The signature verifies with the present settings." + _typed(key))
            return Diagnosis((present,), (late(scheme, fault),) if fault else ())
    search = Search(request, keys, scheme, _urls(request, url or scheme.url))
    found = search.run()
    matches = {tuple(match.settings.items()): match for one in found if (match := _match(request, scheme, one, now))}
    if not matches and (saved := _without_added_newline(request)):
        again = diagnose(saved, keys, scheme, url, now)
        if again.matches:
            return again
    ordered = sorted(matches.values(), key=lambda match: len(match.settings))
    return Diagnosis(tuple(ordered), tuple(causes(request, keys, scheme, search, found, bool(matches))))


def _without_added_newline(request: RawRequest) -> RawRequest | None:
    """The request without the newline that editors put at the end of a file, if nothing tells whether it was sent."""
    if request.all(b"content-length") or not request.body.endswith(b"\n"):
        return None
    body = request.body.removesuffix(b"\n").removesuffix(b"\r")
    return replace(request, body=body) if body and not body.endswith(b"\n") else None


def _match(request: RawRequest, present: Scheme, found: Found, now: float | None) -> Match | None:
    if found.altered is not None or found.mac.hash not in ALGORITHMS:
        return None
    scheme = _scheme(request, present, found)
    if scheme is None:
        return None
    key = found.material.key
    settings = {
        setting(field.name): str(getattr(scheme, field.name))
        for field in fields(Scheme)
        if getattr(scheme, field.name) != getattr(present, field.name)
    }
    says = list(_says(present, scheme, found))
    if _fault(request, key, scheme, now) in _LATE:
        says.append(
            f"The timestamp of this request is further from the clock than {setting('tolerance')} "
            f"({format_duration(scheme.tolerance)}) allows: a new request will be accepted, this one will not."
        )
    return Match(settings, f"{key.name}, {key.twist}" if key.twist else key.name, " ".join(says))


def _scheme(request: RawRequest, present: Scheme, found: Found) -> Scheme | None:
    """The scheme nearest to the present one that accepts the request; None if there is none."""
    mac = found.mac
    base = replace(
        present,
        header=present.header if mac.header.lower() == present.header.lower() else mac.header,
        algorithm=mac.hash,  # type: ignore[arg-type]  # the caller has looked
        content=found.content,
        timestamp_header=_own_header(found.time, mac),
        id_header=_own_header(found.id, mac),
        key_form=found.material.form,
        url=found.url or present.url,
    )
    now = read_time(found.time.value) if found.time else None
    derived = list(forms(mac, found.time, found.id))
    tried = [*(derived[:1] if mac.is_versioned else ()), present.form, AUTO_FORM, *derived]
    for form in tried:
        for encoding in dict.fromkeys((present.encoding, mac.encoding)):
            scheme = replace(base, form=form, encoding=encoding)
            if _fault(request, found.material.key, scheme, now) is None:
                return scheme
    return None


def _own_header(clue: Clue | None, mac: Mac) -> str:
    """The header of a value that is signed; empty if there is none, or if it is beside the signature."""
    return clue.header if clue and clue.header != mac.header else ""


def _says(present: Scheme, scheme: Scheme, found: Found) -> Iterator[str]:
    """Sentences for what differs from the present settings."""
    key = found.material.key
    yield f"HMAC-{HASH_NAMES[scheme.algorithm]} with the {key.name} key{', ' + key.twist if key.twist else ''}."
    if scheme.header != present.header:
        yield f"The signature is in the header {scheme.header}."
    if scheme.algorithm == "sha1" and present.algorithm != "sha1":
        yield "SHA-1 is weak, though not yet broken in an HMAC: ask the sender for SHA-256."
    if found.mac.encoding == "base64-of-hex":
        yield "What is encoded in base64 is not the MAC but its hex digits."
    if scheme.key_form != present.key_form:
        how = _KEY_FORMS.get(scheme.key_form, f"hashed ({scheme.key_form})")
        yield f"The key is {how} before it is used."
    if scheme.content != present.content:
        yield f"What is signed is {_in_words(scheme.content)}."
    if found.time:
        yield f"The timestamp is in {'the signature' if found.time.header == found.mac.header else found.time.header}."
    if found.id:
        yield f"The id is in {'the signature' if found.id.header == found.mac.header else found.id.header}."
    if found.url and found.url != present.url:
        yield f"The URL that is signed is {found.url}."
    if not scheme.signs_time and present.tolerance != TOLERANCE_SECONDS:
        yield f"Remove {setting('tolerance')}: no timestamp is signed."
    if key.value != key.value.strip():
        yield (
            "Have the key pasted anew at the sender, because Jobhook refuses white space around a key. If that cannot "
            f"be, set {setting('key_form')}=base64, and the key to its base64 with that white space."
        )
    elif key.twist:
        yield f"Write the key so where it is set: {key.twist}."
    if typed := _typed(key):
        yield typed.strip()


def _typed(key: Key) -> str:
    return " Put the key that was typed into JOBSITEON_API_KEY." if key.name == TYPED else ""


def _in_words(content: str) -> str:
    if content == BODY:
        return "the body alone"
    if content == BODY + r"\n":
        return "the body and a newline: either the sender adds it before it signs, or a proxy takes it off the body"
    return f"`{content}`"


def _fault(request: RawRequest, key: Key, scheme: Scheme, now: float | None) -> SignatureFault | None:
    """Why a scheme does not accept a request with this key, or None if it does."""
    try:
        Verifier([key.value], scheme).verify(
            request.all, request.body, request.method, request.path, request.query, now
        )
    except BadSignature as bad:
        return bad.fault
    except ValueError:  # the key does not have the form of the scheme, or the scheme contradicts itself
        return "no key fits"
    return None


def _urls(request: RawRequest, url: str) -> list[str]:
    """The URLs that may be signed: the one that is known, or those that the request itself suggests."""
    if url:
        return [url]
    hosts = request.all(b"x-forwarded-host") + request.all(b"host")
    paths = dict.fromkeys((request.target, request.path))
    return [
        f"{scheme}://{host.decode('latin-1')}{path.decode('latin-1')}"
        for host in hosts[:2]
        for scheme in ("https", "http")
        for path in paths
    ]
