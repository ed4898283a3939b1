r"""How a sender signs its webhooks: what can be set of it. Pure, without I/O.

JobsiteOn documents only that a header holds an HMAC made with your API key. All else is assumed, and so is a
field of `Scheme`, whose defaults read the commonest way: SHA-256 of the raw body, in hex or base64. The other
values cover what other providers do (tests/support/providers.py has a table).

Two fields are templates, in which `{name}` stands for a value and everything else for itself: the *content* that
is signed, such as `{timestamp}.{body}`, and the *form* of the signature header, such as
`t={timestamp},v1={signature}` (app/delivery/form.py). In both, `\n`, `\r`, `\t`, `\\`, `\xHH` and `\uHHHH`
are escapes, and `{{` and `}}` are braces.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, get_args

Algorithm = Literal["sha256", "sha384", "sha512", "sha1"]
Encoding = Literal["auto", "hex", "base64", "base64-of-hex"]
KeyForm = Literal["text", "hex", "base64", "sha1", "sha1-hex", "sha256", "sha256-hex", "sha512", "sha512-hex"]

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
KEY_FORMS: tuple[KeyForm, ...] = get_args(KeyForm)
AUTO_FORM = "auto"
BODY = "{body}"
TOLERANCE_SECONDS = 300.0
CONTENT_NAMES = ("body", "timestamp", "id", "url", "method", "path")

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_TOKEN = re.compile(
    r"(?P<literal>[^{}\\]+|\{\{|\}\})|\{(?P<name>\w+)\}|\\(?P<escape>[nrt\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})",
    re.ASCII,
)
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}
_ESCAPED = {character: rf"\x{ord(character):02x}" for character in "\"'$`"}
_ESCAPED |= {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\", "{": "{{", "}": "}}"}
_UNIX_TIME = re.compile(rb"\d{9,19}(?:\.\d{1,9})?")
_MILLISECONDS_FROM = 1e11
"""Unix times from here on are in a smaller unit than seconds: as seconds this would be the year 5138."""
_KEY_PREFIX = b"whsec_"
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")

Token = bytes | str
"""A part of a template: bytes stand for themselves, a string is the name of a value."""


class SchemeError(ValueError):
    """A scheme cannot be used. The message is `SETTING: what is wrong with it`."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a sender signs. Each field is a setting: `setting` tells its name."""

    header: str = "X-Signature"
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "auto"
    """`auto` is hex or base64."""
    form: str = AUTO_FORM
    """`auto` is the signature alone, or after a usual prefix: `sha256=`, `hmac-sha256=`, `v1=` or `v1,`."""
    content: str = BODY
    timestamp_header: str = ""
    id_header: str = ""
    key_form: KeyForm = "text"
    url: str = ""
    """The URL that is registered with the sender, for content that names it."""
    tolerance: float = TOLERANCE_SECONDS
    """Seconds by which a signed timestamp may differ from this machine's clock."""

    def content_tokens(self) -> list[Token]:
        """The parts of what is signed.

        Raises:
            SchemeError: the template cannot be read, or names something for which there is no value.
        """
        found = tokens("content", self.content, CONTENT_NAMES)
        if "body" not in found:
            raise SchemeError(f"{setting('content')}: must name {{body}}: what is not signed cannot be trusted")
        if "url" in found and not self.url:
            raise SchemeError(f"{setting('url')}: must be set, because {setting('content')} names {{url}}")
        return [self.url.encode() if item == "url" else item for item in found]

    @property
    def signs_time(self) -> bool:
        """Whether a timestamp is part of what is signed."""
        return "timestamp" in tokens("content", self.content, CONTENT_NAMES)

    def check_headers(self, in_form: Collection[str]) -> None:
        """Checks that each value that is signed comes from one place, and that none is read for nothing.

        Raises:
            SchemeError: one is missing, is in two places, or is not signed. `in_form` are those in the form.
        """
        signed = tokens("content", self.content, CONTENT_NAMES)
        headers = {"header": self.header, "timestamp_header": self.timestamp_header, "id_header": self.id_header}
        for name, header in headers.items():
            if (header or name == "header") and not _HEADER_NAME.fullmatch(header):
                raise SchemeError(f"{setting(name)}: is not the name of a header")
        for name in ("timestamp", "id"):
            of = setting(f"{name}_header")
            header = headers[f"{name}_header"]
            if name in signed and not header and name not in in_form:
                raise SchemeError(
                    f"{of}: must say where the {name} is, because {setting('content')} names {{{name}}}; "
                    f"or {setting('form')} must name it"
                )
            if header and name in in_form:
                raise SchemeError(f"{of}: is not used, because {setting('form')} names {{{name}}} too")
            if header and header.lower() == self.header.lower():
                raise SchemeError(f"{of}: is the header of the signature; {setting('form')} says what is in it")
            if name not in signed and (header or name in in_form):
                used = of if header else setting("form")
                ignored = "" if header else "; write {any} for what is not signed"
                raise SchemeError(
                    f"{used}: the {name} is not used, because {setting('content')} does not sign it{ignored}"
                )

    def key_bytes(self, key: bytes) -> bytes:
        """The bytes with which the HMAC is made, from a key as it is configured.

        Raises:
            ValueError: the key does not have the form that the scheme says.
        """
        if self.key_form == "text":
            return key
        if self.key_form in {"hex", "base64"}:
            try:
                read = binascii.unhexlify if self.key_form == "hex" else decode_base64
                made = read(key.removeprefix(_KEY_PREFIX))
            except ValueError:
                made = b""
            if not made:
                raise ValueError(f"cannot be read as {self.key_form}, which {setting('key_form')} says it is")
            return made
        name, _, as_text = self.key_form.partition("-")
        digest = hashlib.new(name, key)
        return digest.hexdigest().encode() if as_text else digest.digest()


def setting(name: str) -> str:
    """The environment variable of a field of `Scheme`."""
    return "JOBHOOK_PUBLIC_URL" if name == "url" else f"JOBHOOK_SIGNATURE_{name}".upper()


def tokens(of: str, template: str, names: Sequence[str]) -> list[Token]:
    """The parts of a template; neighbouring literals are one part.

    Raises:
        SchemeError: it names something that is not in `names`, or has stray braces or backslashes. The message
            blames the setting of the field `of`.
    """
    found: list[Token] = []
    end = 0
    for match in _TOKEN.finditer(template):
        if match.start() != end:
            break
        end = match.end()
        name = match["name"]
        if name is not None and name not in names:
            known = ", ".join(f"{{{known}}}" for known in names)
            raise SchemeError(f"{setting(of)}: {{{name}}} is not known here; what is known: {known}")
        if name is not None:
            found.append(name)
            continue
        before = found[-1] if found else ""
        literal = _literal(match)
        if isinstance(before, bytes):
            found[-1] = before + literal
        else:
            found.append(literal)
    if end != len(template):
        raise SchemeError(rf"{setting(of)}: has a stray brace or backslash; to mean these, write {{{{, }}}} or \\")
    return found


def escaped(literal: bytes) -> str:
    """A text as it is written in a template: so that no shell and no `.env` file takes a part of it for its own."""
    text = literal.decode("utf-8", "surrogateescape")
    return "".join(_ESCAPED.get(character, character) for character in text)


def decode_base64(text: bytes) -> bytes:
    """What base64 of either alphabet stands for, with or without its padding.

    Raises:
        ValueError: it is not base64, or it has unused bits set, so that another text would mean the same.
    """
    digits = text.rstrip(b"=").translate(_STANDARD_ALPHABET)
    decoded = base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    if base64.b64encode(decoded).rstrip(b"=") != digits:
        raise ValueError("not canonical")
    return decoded


def read_time(value: bytes) -> float | None:
    """Unix time in seconds, from a timestamp; None if it cannot be read.

    It may be unix time in seconds, milli-, micro- or nanoseconds, ISO 8601 (UTC if it names no zone), or a date
    of HTTP.
    """
    if _UNIX_TIME.fullmatch(value):
        seconds = float(value)
        while seconds >= _MILLISECONDS_FROM:
            seconds /= 1000
        return seconds
    try:
        text = value.decode("ascii")
        moment = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _literal(match: re.Match[str]) -> bytes:
    if text := match["literal"]:
        return text[0].encode() if text in {"{{", "}}"} else text.encode("utf-8", "surrogateescape")
    escape = match["escape"]
    if escape[0] == "x":
        return bytes.fromhex(escape[1:])
    return chr(int(escape[1:], 16)).encode("utf-8", "replace") if escape[0] == "u" else _ESCAPES[escape]
