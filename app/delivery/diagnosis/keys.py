"""The keys that a sender may have signed with: those that are configured, and what they become when mispasted."""

import re
from base64 import b64encode
from binascii import hexlify
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from app.delivery.scheme import KEY_FORMS, KeyForm, Scheme

TYPED = "typed"
"""The name of a key that is not configured, but was typed to be tried."""
_BOM = b"\xef\xbb\xbf"
_QUOTES = b"\"'`"
_PREFIXES = re.compile(rb"(?i)(?:bearer|basic|token|apikey|key)[ :]+|[A-Z][A-Z0-9_]*=|[a-z]{2,8}_(?=\S{8})")
_ESCAPED_NEWLINE = re.compile(rb"(?:\\[rn])+$")
_LINE_ENDS = {b"\n": "a newline (LF) at its end", b"\r\n": "a newline (CRLF) at its end"}


class Key(NamedTuple):
    """A key that may sign."""

    name: str
    """Which of the keys: `current`, `previous 1`, or `TYPED`; never the key itself."""
    value: bytes
    twist: str = ""
    """How this key differs from the one of that name, such as `without the quotes around it`."""


class Material(NamedTuple):
    """The bytes of a key, in one of the forms in which a key becomes bytes."""

    key: Key
    form: KeyForm
    value: bytes


def named(keys: Sequence[bytes]) -> list[Key]:
    """Configured keys, in the order of `Settings.signing_keys`, by their names."""
    return [Key("current" if not index else f"previous {index}", key) for index, key in enumerate(keys)]


def mispasted(keys: Sequence[Key]) -> list[Key]:
    """What the keys are if they, or the sender's, were not pasted as they are; each of them once."""
    seen = {key.value for key in keys}
    twisted: list[Key] = []
    for key in keys:
        for value, twist in _twists(key.value):
            if value and value not in seen:
                seen.add(value)
                twisted.append(key._replace(value=value, twist=twist))
    return twisted


def materials(keys: Sequence[Key], forms: Sequence[KeyForm] = KEY_FORMS) -> list[Material]:
    """Each key as bytes, in every form that it has; the plain forms of all keys first."""
    made: dict[bytes, Material] = {}
    for form in forms:
        scheme = replace(Scheme(), key_form=form)
        for key in keys:
            try:
                value = scheme.key_bytes(key.value)
            except ValueError:
                continue
            made.setdefault(value, Material(key, form, value))
    return list(made.values())


def _twists(key: bytes) -> Iterator[tuple[bytes, str]]:
    yield key.strip(), "without the white space around it"
    yield key.strip(_QUOTES), "without the quotes around it"
    yield key.removeprefix(_BOM), "without the byte order mark (BOM) before it"
    yield _ESCAPED_NEWLINE.sub(b"", key), r"without the \n at its end"
    if prefix := _PREFIXES.match(key):
        yield key[prefix.end() :], f"without what stands before it ({len(prefix[0])} characters)"
    yield unquote_to_bytes(key), "percent-decoded"
    yield key.strip(b" \r\n\t" + _QUOTES).removeprefix(_BOM), "without quotes, white space and byte order mark"
    for end, words in _LINE_ENDS.items():
        yield key + end, f"with {words}"
    yield key + b" ", "with a blank at its end"
    yield b" " + key, "with a blank before it"
    yield key + b"\0", "with a NUL at its end"
    yield b'"' + key + b'"', "with quotes around it"
    yield b"'" + key + b"'", "with quotes around it"
    yield _BOM + key, "with a byte order mark (BOM) before it"
    yield b"Bearer " + key, "with `Bearer ` before it"
    yield b64encode(key), "encoded in base64"
    yield hexlify(key), "written in hex"
    yield key.lower(), "in lower case"
    yield key.upper(), "in upper case"
