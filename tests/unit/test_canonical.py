"""P4: one form for all spellings of a value, and never one form for two values.

Whether two bodies say the same is judged here by a parser that loses nothing: numbers stay exact, and keys that
come twice stay twice.
"""

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.delivery.canonical import MOST_LOOKED_AT, encode, is_certain
from app.delivery.payload import read_payload


def form(body: str | bytes) -> bytes | None:
    """The one form of a body's value; None if it is not certain."""
    raw = body if isinstance(body, bytes) else body.encode()
    payload = read_payload(raw)
    return encode(payload.value) if is_certain(raw, payload) else None


def exact(text: str) -> Any:
    """What a text says, in a form that loses nothing but white space, the order of keys, and how things are spelled."""

    def number(digits: str) -> Any:
        return ("number", Fraction(digits))

    def members(pairs: list[tuple[str, Any]]) -> Any:
        return ("object", sorted(map(repr, pairs)))

    return json.loads(text, object_pairs_hook=members, parse_int=number, parse_float=number)


TELLING_PAIRS = [
    ('{"a":1,"a":2}', '{"a":2}'),
    ('{"a":1,"b":{"a":1,"a":2}}', '{"a":1,"b":{"a":2}}'),
    ('{"a":1,"\\u0061":2}', '{"a":2}'),
    ('{"a\\u003a":1,"a:":2}', '{"a:":2}'),
    ('{"\\u003A":":", "\\u003A":1}', '{":":1}'),
    ('{"u":"\\u003a","a":1,"a":2}', '{"u":":","a":2}'),
    ("[18446744073709551616]", "[18446744073709551617]"),
    ("[18446744073709551616]", "[18446744073709551616.0]"),
    ("[9007199254740993]", "[9007199254740992]"),
    ("[9007199254740993.0]", "[9007199254740992.0]"),
    ("[9007199254740993e0]", "[9007199254740992e0]"),
    ("[9.007199254740993]", "[9.007199254740992]"),
    ("[-9223372036854775809]", "[-9223372036854775808]"),
    ("[0.1]", "[0.10000000000000000001]"),
    ("[ 0.1]", "[0.1000000000000000055511151231257827]"),
    ("[1e400]", "[1e401]"),
    ("[1e-400]", "[1e-401]"),
    ("[1e-400]", "[0.0]"),
    ("[ 1E-400]", "[0.0]"),
    ("[0." + "0" * 400 + "1]", "[0.0]"),
    ("[ 2e-324]", "[0.0]"),
    ("[ 3e-324]", "[5e-324]"),
    ('["\\ud800"]', '["\\ud801"]'),
    ('["\\ud800"]', '["\\ufffd"]'),
    ("[NaN]", "[Infinity]"),
    ("[NaN]", "[null]"),
    ("[1]", "[true]"),
    ('["1"]', "[1]"),
    ("[[]]", "[{}]"),
    ('{"a":null}', "{}"),
    ('["é"]', '["e\\u0301"]'),
    ('["a b"]', '["a  b"]'),
    ('["a\\nb"]', '["a b"]'),
    ('["\\u0000"]', '[""]'),
    ('["\\\\u0041"]', '["A"]'),
    ("[1,2]", "[2,1]"),
    ("[12]", "[1,2]"),
]


@pytest.mark.parametrize(("one", "other"), TELLING_PAIRS, ids=lambda text: text[:30])
@pytest.mark.parametrize("space", ["", " "])
def test_values_that_differ_have_no_form_in_common(one: str, other: str, space: str) -> None:
    forms = form(space + one), form(space + other)
    assert None in forms or forms[0] != forms[1]


UNCERTAIN = {
    "a key that comes twice": b'{"a":1,"a":1}',
    "an integer over 64 bits": b"[18446744073709551616]",
    "a decimal beyond a double": b"[0.10000000000000000001]",
    "too large": b"[1e400]",
    "too small": b"[1e-400]",
    "of 5,000 digits": b"[" + b"9" * 5000 + b"]",
    "half a pair": b'["\\ud800"]',
    "NaN": b"[NaN]",
    "a BOM": b"\xef\xbb\xbf[]",
    "UTF-16": "[]".encode("utf-16"),
    "not UTF-8": b'["\xff"]',
    "nested 400 deep": b"[" * 400 + b"]" * 400,
    "nested 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "no JSON": b"status=paid",
    "two values": b"{} {}",
    "nothing": b"",
    "too large to be looked at": b'["' + b" " * MOST_LOOKED_AT + b'", 1234567890123456]',
}


@pytest.mark.parametrize("body", UNCERTAIN.values(), ids=UNCERTAIN)
def test_where_a_parser_would_lose_something_there_is_no_form(body: bytes) -> None:
    assert form(body) is None
    assert form(b" " + body) is None


SPELLINGS = [
    ('{"a":1,"b":[2,3]}', '{ "b" : [2,\r\n\t3], "a":1 }\n'),
    ('{"a":{"x":1,"y":2}}', '{"a":{"y":2,"x":1}}'),
    ('["é€😀"]', '["\\u00e9\\u20AC\\ud83d\\ude00"]'),
    ('["https://jobsiteon.test/a"]', '["https:\\/\\/jobsiteon.test\\/a"]'),
    ('["<b>&"]', '["\\u003cb\\u003E\\u0026"]'),
    ('[":"]', '["\\u003a"]'),
    ('["\\n\\u001f\\""]', '["\\u000a\\u001F\\u0022"]'),
    ("[100.0]", "[100.00]"),
    ("[100.0]", "[1e2]"),
    ("[100.0]", "[1.0E+2]"),
    ("[0.001]", "[1e-3]"),
    ("[0.30000000000000004]", "[ 0.30000000000000004000]"),
    ("[1772528400123456789]", "[ 1772528400123456789 ]"),
    ("[18446744073709551615,-9223372036854775808]", "[18446744073709551615, -9223372036854775808]"),
    ('["12345678901234567890123"]', '[ "12345678901234567890123"]'),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS, ids=lambda text: text[:30])
def test_spellings_of_a_value_have_one_form(one: str, other: str) -> None:
    assert form(one) == form(other) is not None


def test_an_integer_is_not_a_decimal() -> None:
    """Numbers are told apart as most parsers do. It is certain at least that nothing is taken for another."""
    assert form("[1]") != form("[1.0]")


# Properties

LETTERS = st.characters(codec="utf-8")
NAMES = st.sampled_from(["id", "total", "a:b", "é", "0"]) | st.text(LETTERS, max_size=6)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # what is exact in few digits, and so may be spelled in many ways
    | st.decimals(-(10**9), 10**9, places=2).map(float)
    | st.text(LETTERS, max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


class Writer:
    """Writes a value in one of its many spellings, as drawn."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def space(self) -> str:
        return self.draw(st.sampled_from(["", "", " ", "\n\t", "\r\n"]))

    def write(self, value: Any) -> str:
        return self.space() + self._write(value) + self.space()

    def _write(self, value: Any) -> str:
        if isinstance(value, dict):
            items = self.draw(st.permutations(list(value.items())))
            pairs = (f"{self.space()}{self._text(name)}{self.space()}:{self.write(item)}" for name, item in items)
            return "{" + (",".join(pairs) or self.space()) + "}"
        if isinstance(value, list):
            return "[" + (",".join(map(self.write, value)) or self.space()) + "]"
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, float):
            return self._decimal(repr(value))
        return json.dumps(value)

    def _text(self, text: str) -> str:
        return '"' + "".join(map(self._letter, text)) + '"'

    def _letter(self, letter: str) -> str:
        way = self.draw(st.sampled_from(["plain", "escaped", "ascii"]))
        if way == "escaped" and letter == "/":
            return "\\/"
        if way == "escaped" and ord(letter) < 0x10000:
            return self.draw(st.sampled_from(["\\u{:04x}", "\\u{:04X}"])).format(ord(letter))
        return json.dumps(letter, ensure_ascii=way == "ascii")[1:-1]

    def _decimal(self, text: str) -> str:
        mantissa, e, exponent = text.partition("e")
        if "." not in mantissa:
            mantissa += ".0"
        mantissa += "0" * self.draw(st.integers(0, 3))
        spelled = mantissa + (self.draw(st.sampled_from("eE")) + exponent if e else "")
        if not e and self.draw(st.booleans()):
            spelled += self.draw(st.sampled_from(["e0", "E+0", "e-00"]))
        return spelled


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    value, writer = draw(PLAIN), Writer(draw)
    return writer.write(value), writer.write(value)


@given(spellings())
def test_spellings_of_any_value_have_one_form(pair: tuple[str, str]) -> None:
    one, other = pair
    assert exact(one) == exact(other)
    assert form(one) == form(other) is not None


DIGITS = st.text("0123456789", min_size=1, max_size=24)
NUMBERS = st.sampled_from(["0", "1", "9007199254740992", "9007199254740993", "18446744073709551616"]) | st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole.lstrip('0') or '0'}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(".{}".format) | st.sampled_from([".0", ".1", ".10000000000000000001"]),
    st.sampled_from(["", "e2", "E+2", "e-2", "e400", "e-400", "e-323", "e308"]),
)
FEW_NAMES = st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a:"', '"a\\u003a"'])
TEXTS = st.sampled_from(['""', '"a"', '"\\u0061"', '":"', '"\\u003a"', '"\\ud800"', '"\\ud801"', '"0e-400"', '" "'])


def _joined(brackets: str, parts: list[str], space: str) -> str:
    return brackets[0] + f",{space}".join(parts) + brackets[1]


DOCUMENTS = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["null", "true", "false", "NaN", "Infinity"]),
    lambda inner: (
        st.builds(_joined, st.just("[]"), st.lists(inner, max_size=3), st.sampled_from(["", " "]))
        | st.builds(
            _joined,
            st.just("{}"),
            st.lists(st.tuples(FEW_NAMES, inner).map(":".join), max_size=3),  # keys may come twice
            st.sampled_from(["", " "]),
        )
    ),
    max_leaves=6,
)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[str, str]:
    """Two documents that differ in one number, or by chance in nothing."""
    frame = draw(DOCUMENTS)
    one, other = draw(NUMBERS), draw(NUMBERS)
    if draw(st.booleans()):  # the same but for its last digits
        other = one + draw(st.sampled_from(["0", "1", ".0", ".00000000000000000001", "e0", "e-400"]))
    return f'{{"n":{one},"x":{frame}}}', f'{{"n":{other},"x":{frame}}}'


@example(pair=('{"n":9007199254740992.0,"x":0}', '{"n":9007199254740993.0,"x":0}'))
@given(st.tuples(DOCUMENTS, DOCUMENTS) | neighbours())
def test_no_two_values_have_one_form(pair: tuple[str, str]) -> None:
    one, other = pair
    forms = form(one), form(other)
    assume(None not in forms)
    if forms[0] == forms[1]:
        assert exact(one) == exact(other)
