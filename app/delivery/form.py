"""How a signature is written in its header: read and written by the form of a scheme. Pure, without I/O.

A form is a template such as `sha256={signature}`, `v1:{timestamp}:{signature}` or `t={timestamp},v1={signature}`.
Where commas, semicolons, blanks or ampersands part its values, so that each part has one, it is a list: the parts
may come in any order, with blanks around them; there may be several signatures, one for each of the sender's keys
while it rotates them; parts that the form does not name are passed over. `v1,{signature} v1,{signature}` is a
list of signatures. `{any}` stands for a value that is of no interest.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from app.delivery.scheme import (
    AUTO_FORM,
    Algorithm,
    Encoding,
    Scheme,
    SchemeError,
    Token,
    decode_base64,
    setting,
    tokens,
)

FORM_NAMES = ("signature", "timestamp", "id", "any")
SEPARATORS = (b",", b";", b" ", b"&")
MAX_LIST_BYTES = 4096
"""Of a header that is a list. What providers send is under 1 KiB."""
MAX_LIST_PARTS = 16
"""More signatures than any sender has keys."""
_HASH_NAME = re.compile(r"sha-?(1|256|384|512)(?!\d)", re.IGNORECASE)

Parts = tuple[tuple[Token, ...], ...]


class Malformed(Exception):
    """A signature header is not written in the form that is expected."""


Reading = tuple[list[bytes], bytes | None, bytes | None]
"""What a signature header holds: MACs, a timestamp and an id."""


class Form:
    """A form, compiled.

    Raises:
        SchemeError: the form cannot be read in one way only, or contradicts the algorithm.
    """

    def __init__(self, scheme: Scheme) -> None:
        found: list[Token] = ["signature"]
        if scheme.form != AUTO_FORM:
            found = tokens("form", scheme.form, FORM_NAMES)
            _check(found, scheme.algorithm)
        self.beside = {name for name in ("timestamp", "id") if name in found}
        """What stands in the header besides signatures."""
        self._separator, self._parts = _as_list(found)
        self._encode, self._decode, digits = _encoding(scheme.encoding, scheme.algorithm)
        prefix = rf"(?i:(?:hmac-)?{scheme.algorithm}=|v1[=,])?".encode() if scheme.form == AUTO_FORM else b""
        # Signatures first: to a part that is `{timestamp}` alone, a signature could look like one.
        parts = sorted(self._parts, key=lambda part: "signature" not in part)
        self._patterns = [re.compile(prefix + _pattern(part, digits)) for part in parts]

    def read(self, value: bytes) -> Reading:
        """What the value of a signature header holds.

        Raises:
            Malformed: it is not written in this form.
        """
        if self._separator:
            return self._read_list(value)
        match = self._patterns[0].fullmatch(value)
        if match is None:
            raise Malformed
        if not self.beside:
            return [self._mac(match)], None, None
        beside = match.groupdict()
        return [self._mac(match)], beside.get("timestamp"), beside.get("id")

    def write(self, mac: bytes, values: Mapping[str, bytes]) -> bytes:
        """The value of a header that holds this MAC, given the `timestamp` and `id` that the form names."""
        known = {"any": b"0", **values, "signature": self._encode(mac)}
        parts = (b"".join(known[token] if isinstance(token, str) else token for token in part) for part in self._parts)
        return self._separator.join(dict.fromkeys(parts))

    def _read_list(self, value: bytes) -> Reading:
        parts = value.split(self._separator, MAX_LIST_PARTS)
        if len(value) > MAX_LIST_BYTES or len(parts) > MAX_LIST_PARTS:
            raise Malformed
        macs: list[bytes] = []
        beside: dict[str, bytes] = {}
        for part in map(bytes.strip, parts):
            match = next((match for pattern in self._patterns if (match := pattern.fullmatch(part))), None)
            if match is None:
                continue
            named = match.groupdict()
            if "mac" in named:
                macs.append(self._mac(match))
            elif named.keys() & beside.keys():
                raise Malformed  # of two timestamps, whoever sends this could choose which is believed
            else:
                beside |= named
        if not macs:
            raise Malformed
        return macs, beside.get("timestamp"), beside.get("id")

    def _mac(self, match: re.Match[bytes]) -> bytes:
        try:
            return self._decode(match["mac"])
        except ValueError:
            raise Malformed from None


def _check(found: Sequence[Token], algorithm: Algorithm) -> None:
    of = setting("form")
    literal = b"".join(token for token in found if isinstance(token, bytes)).decode("utf-8", "replace")
    if "signature" not in found:
        raise SchemeError(f"{of}: must name {{signature}}")
    if any(isinstance(one, str) and isinstance(next_, str) for one, next_ in pairwise(found)):
        raise SchemeError(f"{of}: two values stand side by side, and nothing tells where the first ends")
    if any(found.count(name) > 1 for name in ("timestamp", "id")):
        raise SchemeError(f"{of}: names a value twice; only {{signature}} and {{any}} may come again")
    if not literal.isprintable() or not literal.isascii():
        raise SchemeError(f"{of}: has a character that cannot stand in a header")
    hashes = {f"sha{size}" for size in _HASH_NAME.findall(literal)}
    if hashes and algorithm not in hashes:
        raise SchemeError(f"{of}: names {min(hashes)}, but {setting('algorithm')} is {algorithm}")


def _as_list(found: Sequence[Token]) -> tuple[bytes, Parts]:
    """The separator and the parts of a form that is a list; else no separator, and one part."""
    if sum(isinstance(token, str) for token in found) > 1:
        for separator in SEPARATORS:
            parts = _split(found, separator)
            if all(sum(isinstance(token, str) for token in part) == 1 for part in parts):
                return separator, parts
    if found.count("signature") > 1:
        raise SchemeError(f"{setting('form')}: has two signatures, and no comma, semicolon or blank between them")
    return b"", (tuple(found),)


def _split(found: Sequence[Token], separator: bytes) -> Parts:
    parts: list[list[Token]] = [[]]
    for token in found:
        if isinstance(token, str):
            parts[-1].append(token)
        else:
            first, *others = (text.strip() for text in token.split(separator))
            parts[-1].append(first)
            parts += [[other] for other in others]
    return tuple(tuple(filter(None, part)) for part in parts)


def _pattern(part: Sequence[Token], digits: bytes) -> bytes:
    pattern = b""
    for token, following in zip(part, [*part[1:], b""], strict=True):
        if isinstance(token, bytes):
            pattern += b"(?i:" + re.escape(token) + b")"
            continue
        # A value ends where the text begins that follows it, so that there is one way to read it.
        end = re.escape(following[:1]) if isinstance(following, bytes) else b""
        pattern += {
            "signature": b"(?P<mac>" + digits + b")",
            "timestamp": rb"(?P<timestamp>[0-9A-Za-z:.+-]{4,40})",
            "id": rb"(?P<id>[^\s" + end + rb"]{1,256})",
            "any": rb"[^\s" + end + rb"]{0,256}",
        }[token]
    return pattern


Codec = Callable[[bytes], bytes]


def _encoding(encoding: Encoding, algorithm: Algorithm) -> tuple[Codec, Codec, bytes]:
    """How a MAC is written, how it is read, and the pattern of its digits."""
    size = hashlib.new(algorithm).digest_size
    hex_digits = size * 2

    def decode_either(digits: bytes) -> bytes:
        return binascii.unhexlify(digits) if len(digits) == hex_digits else decode_base64(digits)

    as_hex, as_base64 = rb"[0-9a-fA-F]{%d}" % hex_digits, _base64_pattern(size)
    codecs: dict[Encoding, tuple[Codec, Codec, bytes]] = {
        "auto": (binascii.hexlify, decode_either, as_hex + b"|" + as_base64),
        "hex": (binascii.hexlify, binascii.unhexlify, as_hex),
        "base64": (base64.b64encode, decode_base64, as_base64),
        "base64-of-hex": (_encode_base64_of_hex, _decode_base64_of_hex, _base64_pattern(hex_digits)),
    }
    return codecs[encoding]


def _base64_pattern(size: int) -> bytes:
    """Base64 of so many bytes, in either alphabet, with its padding or without."""
    return rb"[A-Za-z0-9+/_-]{%d}(?:={%d})?" % (-(-size * 4 // 3), -size % 3)


def _encode_base64_of_hex(mac: bytes) -> bytes:
    return base64.b64encode(binascii.hexlify(mac))


def _decode_base64_of_hex(text: bytes) -> bytes:
    return binascii.unhexlify(decode_base64(text))
