"""Durations and sizes: what people write is read, what is written is read back."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.units import format_duration, format_size, parse_duration, parse_size

DURATIONS = {
    "500ms": 0.5,
    "90s": 90,
    "1.5h": 5400,
    "1h30m": 5400,
    "1h 30m": 5400,
    " 30d ": 30 * 86400,
    "2W": 14 * 86400,
    "1d1h1m1s1ms": 90061.001,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items(), ids=map(repr, DURATIONS))
def test_reads_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 parsecs", "1h30", "s", "1e3", "1,5h", "5s!", "nan", "inf"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("number", ["7", "90", "0.5", "0"])
def test_a_duration_without_a_unit_is_not_certain(number: str) -> None:
    """P10: a retention of 7 is meant in days, a budget of 1 in seconds."""
    with pytest.raises(ValueError, match=rf"write a duration such as .* in days, write {number}d, .* write {number}s$"):
        parse_duration(number)


SIZES = {
    "1048576": 1024**2,
    "0": 0,
    "100b": 100,
    "500kB": 500_000,
    "64 KiB": 64 * 1024,
    "64k": 64 * 1024,
    "1MiB": 1024**2,
    "1m": 1024**2,
    "1MB": 1_000_000,
    "1.5 mib": 1_572_864,
}


@pytest.mark.parametrize(("text", "size"), SIZES.items(), ids=map(repr, SIZES))
def test_reads_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "big", "-1", "1 TB", "1e6", "MiB", "1MiB2", "nan", "9" * 400, "1,5MB", "10 000", "1.2.3"]
)
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write a size such as"):
        parse_size(text)


@hypothesis_settings(deadline=None)
@given(seconds=st.floats(min_value=0, max_value=1e9) | st.integers(min_value=0, max_value=10**9))
def test_a_written_duration_is_read_back(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@hypothesis_settings(deadline=None)
@given(
    size=st.integers(min_value=0, max_value=2**40) | st.integers(min_value=0, max_value=2**20).map(lambda n: n << 20)
)
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "0.5s"), (0.002, "2ms"), (61.5, "61.5s"), (90, "90s"), (5400, "90m"), (604800.0, "7d")],
    ids=str,
)
def test_writes_durations_briefly(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@hypothesis_settings(deadline=None)
@given(text=st.text() | st.from_regex(r"\A[0-9]{1,30}[.]?[0-9a-zA-Z ]{0,8}\Z"))
def test_parsers_raise_nothing_but_value_errors(text: str) -> None:
    """Pydantic makes a clear line of a ValueError, and of nothing else."""
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            assert str(error).startswith("write a ")  # noqa: PT017 - either is right
