"""Webhook signatures: pure functions on bytes, no I/O.

Documented by JobsiteOn ("API Security Best Practices"): the header `X-Signature` is an HMAC made with
your API key. Not documented, hence assumed and settable: the hash, the encoding, and that the raw
body alone is signed.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.errors import BadSignature

HEADER = b"x-signature"

Algorithm = Literal["sha256", "sha384", "sha512"]
Encoding = Literal["auto", "hex", "base64"]


def sign(key: bytes, body: bytes, algorithm: Algorithm = "sha256", encoding: Encoding = "auto") -> str:
    """The value of `X-Signature` for a body: hex digits, or base64 when asked for."""
    mac = hmac.digest(key, body, algorithm)
    return base64.b64encode(mac).decode() if encoding == "base64" else mac.hex()


def _grammar(algorithm: Algorithm, encoding: Encoding) -> re.Pattern[bytes]:
    """An optional scheme prefix, then the MAC in hex or in base64 of either alphabet."""
    size = hashlib.new(algorithm).digest_size
    base64_length, padding = -(-size * 4 // 3), -size % 3
    forms = {
        "hex": f"(?P<hex>[0-9a-fA-F]{{{size * 2}}})",
        "base64": f"(?P<base64>[A-Za-z0-9+/_-]{{{base64_length}}}(?:={{{padding}}})?)",
    }
    mac = "|".join(forms.values()) if encoding == "auto" else forms[encoding]
    return re.compile(f"(?i:(?:hmac-)?{algorithm}=|v1[=,])?(?:{mac})".encode())


@dataclass(frozen=True)
class Verifier:
    """Tells whether a body was signed with one of the keys.

    `keys` are in the order of `Settings.signing_keys`: the current key, then those being rotated out.
    """

    keys: tuple[bytes, ...] = field(repr=False)
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "auto"
    _pattern: re.Pattern[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.keys or not all(self.keys):
            raise ValueError("a verifier needs at least one key, and none of them empty")
        object.__setattr__(self, "_pattern", _grammar(self.algorithm, self.encoding))

    def verify(self, values: Sequence[bytes], body: bytes) -> int:
        """The index of the key that signed `body`, given all values of the signature header.

        Every key is tried and compared in constant time, so the time taken tells nothing.

        Raises:
            BadSignature: the header is missing, repeated or malformed, or no key made this MAC.
        """
        if len(values) != 1:
            raise BadSignature
        mac = self._decode(values[0])
        signer = -1
        for index, key in enumerate(self.keys):
            if hmac.compare_digest(hmac.digest(key, body, self.algorithm), mac):
                signer = index
        if signer < 0:
            raise BadSignature
        return signer

    def _decode(self, value: bytes) -> bytes:
        match = self._pattern.fullmatch(value)
        if match is None:
            raise BadSignature
        if match.lastgroup == "hex":
            return binascii.unhexlify(match["hex"])
        digits = match["base64"].rstrip(b"=").translate(_STANDARD_ALPHABET)
        mac = base64.b64decode(digits + b"=" * (-len(digits) % 4))
        if base64.b64encode(mac).rstrip(b"=") != digits:  # unused bits set: not canonical
            raise BadSignature
        return mac


_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
