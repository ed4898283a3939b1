"""Webhook signatures, verified and made by a scheme: pure functions on bytes, without I/O."""

import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from uuid import uuid4

from app.delivery.form import Form, Malformed
from app.delivery.scheme import Algorithm, Encoding, Scheme, Token, read_time
from app.errors import BadSignature, SignatureFault

HEADER = b"x-signature"
"""The header that JobsiteOn documents, in lower case."""
_ID = re.compile(rb"[\w.:+/=~@|-]{1,256}", re.ASCII)
"""What passes for a signed id. It has no quotes and no brackets, so that nobody can move the beginning of a JSON
body into the id in front of it, which would leave what is signed the same."""
_MORE_OF_A_VALUE = re.compile(rb"[\w.:+/=~@|-]", re.ASCII)
"""What a body must not begin with where nothing parts it from a signed id or timestamp: of `17` and `72{}` nobody
can tell which was the timestamp. JSON objects and arrays never begin so."""
_DIGITS = re.compile(rb"(?<![0-9A-Za-z+/_-])([0-9A-Za-z+/_-]{27,128})={0,2}(?![0-9A-Za-z+/_=-])")
_HEX = re.compile(rb"[0-9a-fA-F]+")
_LOOKED_AT_BYTES = 256
"""Of a header that cannot be read: what a stranger can make us look through to say what it looks like."""
_HEX_LENGTHS: Mapping[int, SignatureFault] = {
    32: "looks like MD5",
    40: "looks like SHA-1",
    64: "looks like SHA-256",
    96: "looks like SHA-384",
    128: "looks like SHA-512",
}
_BASE64_LENGTHS: Mapping[int, SignatureFault] = {
    27: "looks like SHA-1",
    43: "looks like SHA-256",
    64: "looks like SHA-384",
    86: "looks like SHA-512",
}

Lookup = Callable[[bytes], Sequence[bytes]]
"""All values of a header, by its name in lower case."""


class Verifier:
    """Tells whether a request was signed with one of the keys. Compiled once, used for every delivery.

    `keys` are in the order of `Settings.signing_keys`: the current key, then those being rotated out.

    Raises:
        SchemeError: the scheme contradicts itself.
        ValueError: there is no key, or one does not have the form that the scheme says.
    """

    def __init__(self, keys: Sequence[bytes], scheme: Scheme = Scheme()) -> None:  # noqa: B008 - frozen
        if not keys or not all(keys):
            raise ValueError("a verifier needs at least one key, and none of them empty")
        self._algorithm = scheme.algorithm
        self._tolerance = scheme.tolerance
        self._looks_right = f"looks like SHA-{scheme.algorithm.removeprefix('sha')}"
        self._form = Form(scheme)
        self._content = scheme.content_tokens()
        self._is_body = self._content == ["body"]
        self._signs_time, self._signs_id = "timestamp" in self._content, "id" in self._content
        after = dict(pairwise(self._content))
        self._after_id = literal if isinstance(literal := after.get("id"), bytes) else b""
        self._unparted = "body" in {after.get("id"), after.get("timestamp")}
        scheme.check_headers(self._form.beside)
        self._header = scheme.header.lower().encode()
        self._timestamp_header = scheme.timestamp_header.lower().encode()
        self._id_header = scheme.id_header.lower().encode()
        self._keys = tuple(map(scheme.key_bytes, keys))

    def verify(
        self,
        headers: Lookup,
        body: bytes,
        method: str = "POST",
        path: bytes = b"/",
        query: bytes = b"",
        now: float | None = None,
    ) -> int:
        """The index of the key that signed a request.

        Every key is tried, and compared in constant time, so the time taken tells nothing of the keys. A signed
        timestamp is looked at after that; `now`, in unix time, is when the request arrived, if not just now.

        Raises:
            BadSignature: the request is not signed by this scheme with one of the keys, or not in time.
        """
        values = headers(self._header)
        if len(values) != 1:
            raise BadSignature("two headers" if values else "no header")
        try:
            macs, timestamp, id = self._form.read(values[0])
        except Malformed:
            raise BadSignature(self._fault(values[0])) from None
        content = body
        if not self._is_body:
            if self._timestamp_header:
                timestamp = _only(headers(self._timestamp_header))
            if self._id_header:
                id = _only(headers(self._id_header))
            given = {"body": body, "method": method.encode(), "path": _target(path, query)}
            content = compose(self._content, given | self._signed(timestamp, id))
            if self._unparted and _MORE_OF_A_VALUE.match(body):
                raise BadSignature("ambiguous body")
        signer = -1
        for index, key in enumerate(self._keys):
            expected = hmac.digest(key, content, self._algorithm)
            for mac in macs:
                if hmac.compare_digest(expected, mac) and signer < 0:
                    signer = index
        if signer < 0:
            raise BadSignature("no key fits" if body else "empty body")
        if self._signs_time and timestamp is not None:
            self._check_time(timestamp, now)
        return signer

    def _signed(self, timestamp: bytes | None, id: bytes | None) -> dict[str, bytes]:
        """The values beside the body that are signed. One that is missing is not taken for an empty one: then a
        body that begins with the timestamp would pass as signed, and at any time.
        """
        values: dict[str, bytes] = {}
        if self._signs_time:
            if timestamp is None:
                raise BadSignature("no timestamp")
            values["timestamp"] = timestamp
        if self._signs_id:
            if id is None:
                raise BadSignature("no id")
            # Else bytes could be moved between the id and what follows it, and leave what is signed the same.
            if not _ID.fullmatch(id) or (self._after_id and self._after_id in id):
                raise BadSignature("unusable id")
            values["id"] = id
        return values

    def _check_time(self, timestamp: bytes, now: float | None) -> None:
        signed_at = read_time(timestamp)
        if signed_at is None:
            raise BadSignature("unreadable timestamp")
        if abs((time.time() if now is None else now) - signed_at) > self._tolerance:
            raise BadSignature("timestamp out of tolerance")

    def _fault(self, value: bytes) -> SignatureFault:
        """What a header that cannot be read looks like, in a word from a fixed list."""
        match = _DIGITS.search(value, 0, _LOOKED_AT_BYTES)
        if match is None:
            return "malformed header"
        digits = match[1]
        as_hex = _HEX_LENGTHS.get(len(digits)) if _HEX.fullmatch(digits) else None
        looks = as_hex or _BASE64_LENGTHS.get(len(digits))
        return looks if looks and looks != self._looks_right else "malformed header"


class Signer:
    """Signs requests as a sender with this scheme and key does: the counterpart of `Verifier`.

    Raises:
        SchemeError: the scheme contradicts itself.
        ValueError: the key does not have the form that the scheme says.
    """

    def __init__(self, key: bytes, scheme: Scheme = Scheme()) -> None:  # noqa: B008 - frozen
        self._scheme = scheme
        self._form = Form(scheme)
        self._content = scheme.content_tokens()
        scheme.check_headers(self._form.beside)
        self._key = scheme.key_bytes(key)

    def headers(
        self, body: bytes, method: str = "POST", path: bytes = b"/", query: bytes = b"", now: float | None = None
    ) -> dict[str, str]:
        """The headers that a request needs: the signature, and the signed timestamp and id if they have their own."""
        timestamp = str(int(time.time() if now is None else now)).encode()
        beside = {"timestamp": timestamp, "id": b"msg_" + uuid4().hex.encode()}
        given = {"body": body, "method": method.encode(), "path": _target(path, query)}
        mac = hmac.digest(self._key, compose(self._content, given | beside), self._scheme.algorithm)
        headers = {self._scheme.header: self._form.write(mac, beside)}
        if self._scheme.timestamp_header:
            headers[self._scheme.timestamp_header] = timestamp
        if self._scheme.id_header:
            headers[self._scheme.id_header] = beside["id"]
        return {name: value.decode() for name, value in headers.items()}


def sign(key: bytes, body: bytes, algorithm: Algorithm = "sha256", encoding: Encoding = "auto") -> str:
    """The value of `X-Signature` for a body, as JobsiteOn is assumed to write it."""
    scheme = Scheme(algorithm=algorithm, encoding=encoding)
    return Signer(key, scheme).headers(body)[scheme.header]


def compose(content: Sequence[Token], values: Mapping[str, bytes]) -> bytes:
    """What is signed, from the parts of a template and the values that they name."""
    return b"".join(values[token] if isinstance(token, str) else token for token in content)


def _target(path: bytes, query: bytes) -> bytes:
    return path + b"?" + query if query else path


def _only(values: Sequence[bytes]) -> bytes | None:
    if len(values) > 1:
        raise BadSignature("two headers")
    return values[0] if values else None


__all__ = ["HEADER", "Lookup", "Signer", "Verifier", "compose", "sign"]
