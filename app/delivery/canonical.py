"""One form for all spellings of a JSON value, and whether it is certain that no other value has the same form.

White space, the order of keys, escapes in strings and the spelling of decimals (`1e2`, `100.00`) do not
count. An integer and a decimal are different (`1` and `1.0`), as most parsers have it.
"""

import json
from decimal import Decimal
from typing import Any

import orjson

from app.delivery.payload import Payload

MOST_LOOKED_AT = 1024**2
"""Bytes of a body whose every key and number is looked at: about 10 ms. Of a larger one the bytes decide."""
LONGEST_NUMBER = 40
"""Characters. A longer number is more than a double can tell, and is not looked at more closely."""
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1
"""What orjson reads as an integer; it reads all others as floats."""

_DIGITS = bytes.maketrans(b"123456789.E", b"0000000000e")
_MANY_DIGITS = b"0" * 16
"""A double tells all decimals of 15 digits from one another. From 16 on, two of them may be read as the same."""
_TINY = b"0e-000"
"""A number with such an exponent may be too small for a double, and be read as another one or as zero."""


class _Uncertain(Exception):
    """A parser loses something of this body."""


def encode(value: Any) -> bytes:
    """A JSON value in its one form: compact, with sorted keys.

    Raises:
        TypeError: it has none (it is nested too deep).
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def is_certain(body: bytes, payload: Payload) -> bool:
    """Whether the payload is all that its body says: no body with another value could be read as the same payload.

    Parsers lose duplicate keys, integers over 64 bits, decimals beyond a double, lone surrogates. Each of the
    three looks is for bodies of which the one before could not be sure; most need the first one only.
    """
    if not payload.strict:
        return False
    try:
        written = orjson.dumps(payload.value)
    except TypeError:
        return False
    return written == body or _lost_nothing(body, written) or _is_exact(body)


def _lost_nothing(body: bytes, written: bytes) -> bool:
    """Whether every key is in `written`, and no number is long enough for a double to fail; False if unsure.

    Each key has its colon. A body with more colons than `written` had a key twice; only escaped colons could
    hide that.
    """
    if body.count(b":") != written.count(b":"):
        return False
    if b"\\" in body and (b"\\u003a" in body or b"\\u003A" in body):
        return False
    digits = body.translate(_DIGITS)
    return _MANY_DIGITS not in digits and _TINY not in digits


def _is_exact(body: bytes) -> bool:
    """The same, by looking at every key and every number: about 10 µs a kilobyte."""
    if len(body) > MOST_LOOKED_AT:
        return False
    try:
        json.loads(body, object_pairs_hook=_distinct, parse_int=_exact_integer, parse_float=_exact_decimal)
    except (_Uncertain, ArithmeticError, RecursionError):
        return False
    return True


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Uncertain


def _exact_integer(text: str) -> None:
    if len(text) > LONGEST_NUMBER or not _LEAST_INTEGER <= int(text) <= _GREATEST_INTEGER:
        raise _Uncertain


def _exact_decimal(text: str) -> None:
    if len(text) > LONGEST_NUMBER or Decimal(text) != Decimal(repr(float(text))):
        raise _Uncertain
