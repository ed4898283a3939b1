"""What in the head of a request may have to do with a signature: MACs, timestamps, ids, and the form around them."""

import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from app.delivery.diagnosis.request import RawRequest
from app.delivery.form import SEPARATORS
from app.delivery.scheme import Encoding, decode_base64, escaped, read_time

HASH_OF_LENGTH = {16: "md5", 20: "sha1", 32: "sha256", 48: "sha384", 64: "sha512"}
"""The bytes of a MAC name its hash."""
MAX_MACS, MAX_TIMES, MAX_IDS = 32, 4, 6
_MAX_VALUE_BYTES = 4096
_YEAR_2001, _YEAR_2100 = 1e9, 4.1e9
"""In unix time: what else has so many digits is a number of something else."""

_HEX = re.compile(rb"[0-9a-fA-F]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_TIME = re.compile(
    rb"(?<![0-9A-Za-z])(?:\d{10}(?:\d{3}){0,3}|\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d)?)(?![0-9A-Za-z])"
)
_ID = re.compile(rb"[\w.:+/=~@|-]{3,256}", re.ASCII)
_NAMED = re.compile(rb"[\w-]{1,20}=\S+", re.ASCII)
_VARIABLE = re.compile(
    rb"(?<![0-9A-Za-z._-])(?=[0-9A-Za-z._-]*\d)(?!sha|hmac)[0-9A-Za-z._-]{6,}(?![0-9A-Za-z._-])", re.IGNORECASE
)
"""What differs from request to request or from key to key, such as a key's id: long, and with digits in it."""
_VERSIONED = re.compile(rb"v\d,\S+")
_OF_THE_CONNECTION = re.compile(
    r"host|content-(length|type|encoding)|transfer-encoding|connection|accept(-.*)?|user-agent|via|cookie|origin|referer"
    r"|x-forwarded-.*|x-real-ip|forwarded|cf-.*|cdn-loop|priority|te|expect|pragma|cache-control|sec-.*",
    re.IGNORECASE,
)
_OF_A_SIGNATURE = re.compile(r"sign|hmac|mac\b|digest|hash|authoriz|-sig\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Clue:
    """A value in a header."""

    header: str
    start: int
    end: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Mac(Clue):
    """Digits that stand for as many bytes as a hash has."""

    mac: bytes
    encoding: Encoding
    whole: bytes
    """The value of the header in which the digits stand."""

    @property
    def hash(self) -> str:
        """The name of the hash that makes MACs of this length."""
        return HASH_OF_LENGTH[len(self.mac)]

    @property
    def is_versioned(self) -> bool:
        """Whether it is written as by a sender that numbers its versions, and sends several while it rotates keys."""
        return bool(_VERSIONED.fullmatch(self.whole.split()[0]))

    @property
    def is_named(self) -> bool:
        """Whether the header's name speaks of a signature."""
        return bool(_OF_A_SIGNATURE.search(self.header))


def macs(request: RawRequest) -> list[Mac]:
    """All that may be a MAC, first where the header's name speaks of a signature."""
    found = [
        mac for name, value in request.headers if not _skipped(name) for mac in _macs_in(name, value[:_MAX_VALUE_BYTES])
    ]
    return sorted(found, key=lambda mac: not mac.is_named)[:MAX_MACS]


def signature_headers(request: RawRequest) -> list[str]:
    """The names of the headers that hold what may be a signature, by name and length."""
    return list(dict.fromkeys(mac.header for mac in macs(request) if mac.is_named))


def times(request: RawRequest, macs: Iterable[Mac]) -> list[Clue]:
    """What may be the timestamp that is signed: beside a MAC in its header, or a header of its own."""
    beside = [
        Clue(name, match.start(), match.end(), match[0])
        for name, value in {mac.header: mac.whole for mac in macs}.items()
        for match in _TIME.finditer(value[:_MAX_VALUE_BYTES])
        if _is_time(match[0])
    ]
    own = [_whole(name, value) for name, value in request.headers if _is_time(value)]
    return list(islice(_distinct([*beside, *own]), MAX_TIMES))


def ids(request: RawRequest, macs: Iterable[Mac]) -> list[Clue]:
    """What may be the id that is signed: headers of their own, first those whose names speak of an id."""
    holders = {mac.header for mac in macs if mac.is_named}
    found = [
        _whole(name, value)
        for name, value in request.headers
        if _ID.fullmatch(value) and name not in holders and not _skipped(name)
    ]
    found.sort(
        key=lambda clue: (not re.search(r"id\b|uuid|nonce|token", clue.header, re.IGNORECASE), _is_time(clue.value))
    )
    return list(islice(_distinct(found), MAX_IDS))


def forms(mac: Mac, time: Clue | None, id: Clue | None) -> Iterator[str]:
    """The forms in which this header may be written, the likeliest first; `time` and `id` are those that are signed."""
    beside = {
        name: clue for name, clue in (("timestamp", time), ("id", id)) if clue is not None and clue.header == mac.header
    }
    spans = {"signature": (mac.start, mac.end), **{name: (clue.start, clue.end) for name, clue in beside.items()}}
    if mac.is_versioned and not beside:
        version = escaped(mac.whole[: mac.whole.index(b",")])
        yield f"{version},{{signature}} {version},{{signature}}"
    if listed := _list_form(mac, spans):
        yield listed
    yield _template(mac.whole, 0, len(mac.whole), spans)


def _list_form(mac: Mac, spans: dict[str, tuple[int, int]]) -> str | None:
    for separator in SEPARATORS:
        parts = list(_parts(mac.whole, separator))
        holders = {name: _holder(parts, span) for name, span in spans.items()}
        part = holders["signature"]
        if len(parts) == 1 or part is None or None in holders.values() or len(set(holders.values())) < len(holders):
            continue
        prefix = mac.whole[part[0] : mac.start]
        known = [span for span in holders.values() if span]
        if not all((s, e) in known or _fits(mac.whole[s:e], prefix) for s, e in parts):
            continue
        ordered = sorted(spans, key=lambda name: spans[name])
        written = [_template(mac.whole, *span, {name: spans[name]}) for name in ordered if (span := holders[name])]
        if len(written) == 1:
            written *= 2  # a list of signatures alone
        return (separator.decode() if separator != b" " else " ").join(written)
    return None


def _fits(part: bytes, prefix: bytes) -> bool:
    """Whether a part of a header is one of a list's: `name=value`, or written as the signature is."""
    if _NAMED.fullmatch(part):
        return True
    return part.startswith(prefix) and any(_macs_in("", part[len(prefix) :]))


def _parts(value: bytes, separator: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts of a list begin and end, without the blanks around them."""
    start = 0
    for part in value.split(separator):
        stripped = part.strip()
        begin = start + part.index(stripped)
        yield begin, begin + len(stripped)
        start += len(part) + len(separator)


def _holder(parts: list[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int] | None:
    return next(((start, end) for start, end in parts if start <= span[0] and span[1] <= end), None)


def _template(value: bytes, start: int, end: int, spans: dict[str, tuple[int, int]]) -> str:
    """A part of a header as a template: what is read is named, what is variable is `{any}`, the rest is itself."""
    taken = sorted((span, name) for name, span in spans.items())
    for match in _VARIABLE.finditer(value, start, end):
        if all(match.end() <= begin or finish <= match.start() for (begin, finish), _ in taken):
            taken = sorted([*taken, (match.span(), "any")])
    written, at = "", start
    for (begin, finish), name in taken:
        written += escaped(value[at:begin]) + f"{{{name}}}"
        at = finish
    return written + escaped(value[at:end])


def _macs_in(name: str, value: bytes) -> Iterator[Mac]:
    for match in _HEX.finditer(value):
        if len(match[0]) % 2 == 0 and len(match[0]) // 2 in HASH_OF_LENGTH:
            yield Mac(name, *match.span(), match[0], binascii.unhexlify(match[0]), "hex", value)
    for match in _BASE64.finditer(value):
        if _HEX.fullmatch(match[0]):
            continue
        try:
            decoded = decode_base64(match[0])
        except ValueError:
            continue
        if _HEX.fullmatch(decoded) and len(decoded) % 2 == 0 and len(decoded) // 2 in HASH_OF_LENGTH:
            yield Mac(name, *match.span(), match[0], binascii.unhexlify(decoded), "base64-of-hex", value)
        elif len(decoded) in HASH_OF_LENGTH:
            yield Mac(name, *match.span(), match[0], decoded, "base64", value)


def _skipped(name: str) -> bool:
    return bool(_OF_THE_CONNECTION.fullmatch(name))


def _is_time(value: bytes) -> bool:
    seconds = read_time(value)
    return seconds is not None and _YEAR_2001 <= seconds < _YEAR_2100


def _whole(name: str, value: bytes) -> Clue:
    return Clue(name, 0, len(value), value)


def _distinct(clues: Iterable[Clue]) -> Iterator[Clue]:
    return iter({(clue.header.lower(), clue.start): clue for clue in clues}.values())
