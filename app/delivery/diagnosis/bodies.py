"""The ways in which a body changes between its signing and its arrival."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, quote_plus

_BOM = b"\xef\xbb\xbf"
_LARGE_BYTES = 64 * 1024
"""Of larger bodies, only the commonest ways of writing JSON are tried: each of them takes milliseconds."""
_MAX_INFLATED_BYTES = 4 * 1024**2
_NUMBER = re.compile(r'"\\u0000([^"]{1,400})"')


class Altered(NamedTuple):
    """A body as it may have been when it was signed."""

    body: bytes
    how: str
    """What it was then, to be read after "the body"."""
    rewritten: bool = False
    """Whether it is the same JSON, written anew."""


class _Layout(NamedTuple):
    how: str
    indent: int | str | None
    separators: tuple[str, str]


_LAYOUTS = (
    _Layout("compact, without spaces", None, (",", ":")),
    _Layout("in one line, with a space after each comma and colon", None, (", ", ": ")),
    _Layout("indented by 2", 2, (",", ": ")),
    _Layout("indented by 4", 4, (",", ": ")),
    _Layout("indented by tabs", "\t", (",", ": ")),
)
_ESCAPES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", str),
    ("with every slash escaped", lambda text: text.replace("/", r"\/")),
    (
        "with <, > and & escaped",
        lambda text: text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"),
    ),
)
_NUMBERS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("", str),
    ("with its decimals written anew", lambda digits: repr(float(digits))),
    ("with its decimals written as JavaScript does", lambda digits: repr(float(digits)).removesuffix(".0")),
)
_ENDS = (("", b""), ("with a newline at its end", b"\n"))


def altered(body: bytes) -> Iterator[Altered]:
    """Every body that `body` may have been, each once, without `body` itself."""
    seen = {body}
    for one in (*_as_text(body), *_as_encoded(body), *_as_json(body)):
        if one.body not in seen:
            seen.add(one.body)
            yield one


def _as_text(body: bytes) -> Iterator[Altered]:
    yield Altered(body + b"\n", "with a newline at its end")
    yield Altered(body + b"\r\n", "with a newline (CRLF) at its end")
    yield Altered(body.rstrip(b"\r\n"), "without the newline at its end")
    yield Altered(body.strip(), "without the white space around it")
    yield Altered(body.replace(b"\r\n", b"\n"), "with lines that end in LF, not CRLF")
    yield Altered(body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), "with lines that end in CRLF, not LF")
    yield Altered(_BOM + body, "with a byte order mark (BOM)")
    yield Altered(body.removeprefix(_BOM), "without the byte order mark (BOM)")
    for how, read, write in (
        ("in Latin-1, not UTF-8", "utf-8", "latin-1"),
        ("in UTF-8, not Latin-1", "latin-1", "utf-8"),
        ("in Windows-1252, not UTF-8", "utf-8", "cp1252"),
        ("in UTF-8, not Windows-1252", "cp1252", "utf-8"),
        ("in UTF-16, not UTF-8", "utf-8", "utf-16-le"),
    ):
        try:
            yield Altered(body.decode(read).encode(write), how)
        except UnicodeError:
            continue
    yield Altered(body.decode("utf-8", "replace").encode("ascii", "replace"), "with ? for all that is not ASCII")
    yield Altered(b"", "empty: the sender signs no body")


def _as_encoded(body: bytes) -> Iterator[Altered]:
    for how, window in (("decompressed (gzip)", zlib.MAX_WBITS | 16), ("decompressed (deflate)", zlib.MAX_WBITS)):
        try:
            yield Altered(zlib.decompressobj(window).decompress(body, _MAX_INFLATED_BYTES), how)
        except zlib.error:
            continue
    for level in (6, 9, 1):
        yield Altered(gzip.compress(body, level, mtime=0), "compressed (gzip)")
    yield Altered(b"payload=" + quote_plus(body).encode(), "in a form's field `payload`")
    yield Altered(b"payload=" + quote(body, safe="").encode(), "in a form's field `payload`")
    try:
        fields = parse_qs(body.decode(), strict_parsing=True)
    except ValueError:
        return
    for values in fields.values():
        yield Altered(values[0].encode(), "the JSON alone, out of the form's field")


def _as_json(body: bytes) -> Iterator[Altered]:
    try:
        # Decimals are kept as they are written, in a string that no JSON text has by itself.
        value = json.loads(body.removeprefix(_BOM), parse_float=lambda digits: f"\0{digits}")
    except (ValueError, RecursionError):
        return
    large = len(body) > _LARGE_BYTES
    escapes, numbers = (_ESCAPES[:1], _NUMBERS[:1]) if large else (_ESCAPES, _NUMBERS)
    for is_sorted, is_ascii, layout in product((False, True), (False, True), _LAYOUTS):
        try:
            text = _written(value, layout, is_sorted, is_ascii)
        except (ValueError, TypeError, RecursionError):
            continue
        for (slashes, escape), (decimals, write), (end, newline) in product(escapes, numbers, _ENDS):
            words = (
                layout.how,
                "its keys sorted" if is_sorted else "",
                r"all that is not ASCII written as \uXXXX" if is_ascii and r"\u" in text else "",
                slashes,
                decimals if "\\u0000" in text else "",
                end,
            )
            made = escape(_NUMBER.sub(lambda match, write=write: write(match[1]), text))  # type: ignore[misc]
            yield Altered(_encoded(made) + newline, ", ".join(filter(None, words)), rewritten=True)


def _written(value: Any, layout: _Layout, is_sorted: bool, is_ascii: bool) -> str:
    return json.dumps(
        value, indent=layout.indent, separators=layout.separators, sort_keys=is_sorted, ensure_ascii=is_ascii
    )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
