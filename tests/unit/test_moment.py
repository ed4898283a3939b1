"""The forms in which senders write a moment."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery.moment import read_moment

NINE_O_CLOCK = 1772528400.0
"""2026-03-03T09:00:00Z."""


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-03T09:00:00Z",
        "2026-03-03T09:00:00.000Z",
        "2026-03-03T09:00:00.000000000Z",
        "2026-03-03T02:00:00-07:00",
        "2026-03-03T02:00:00-0700",
        "2026-03-03t09:00:00z",
        "20260303T090000Z",
        "2026-03-03 09:00:00",
        "2026-03-03 09:00:00 UTC",
        "2026-03-03 09:00 UTC",
        "2026-03-03 09:00:00.000 UTC",
        "2026-03-03 09:00:00UTC",
        "2026-03-03T09:00:00 GMT",
        "2026-03-03 02:00:00 -0700",
        "2026-03-03 09:00:00 +0000 UTC",
        "Tue, 03 Mar 2026 09:00:00 GMT",
        "Tue, 3 Mar 2026 09:00:00 +0000",
        "Tue, 03 Mar 2026 02:00:00 -0700",
        "Tue, 03 Mar 2026 09:00:00 -0000",
        "Tue, 03 Mar 2026 09:00:00 +0000 (UTC)",
        "3 Mar 2026 09:00 UT",
        "Tue, 03 Mar 2026 04:00:00 EST",
        1772528400,
        1772528400.0,
        1772528400000,
        1772528400000000,
        "1772528400",
        "1772528400.0",
        "1772528400000",
        "1772528400000.000",
        "1772528400000000",
    ],
    ids=str,
)
def test_reads_moments_in_every_usual_form(value: Any) -> None:
    assert read_moment(value) == NINE_O_CLOCK


@pytest.mark.parametrize(
    "value",
    [
        *(1772528400.25, 1772528400250, 1772528400250000, "1772528400.25", "1772528400250", "1772528400250000"),
        *("2026-03-03T09:00:00.250Z", "2026-03-03 09:00:00.25 UTC", "2026-03-03 02:00:00.250000 -0700"),
    ],
    ids=str,
)
def test_keeps_fractions_of_seconds(value: Any) -> None:
    assert read_moment(value) == NINE_O_CLOCK + 0.25


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is not set to UTC."""
    monkeypatch.setenv("TZ", "MST7")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
def test_moments_without_a_zone_are_utc_wherever_this_runs() -> None:
    assert read_moment("2026-03-03T09:00:00") == NINE_O_CLOCK
    assert read_moment("2026-03-03") == NINE_O_CLOCK - 9 * 3600
    assert read_moment("20260303") == NINE_O_CLOCK - 9 * 3600
    assert read_moment("Tue, 03 Mar 2026 09:00:00 -0000") == NINE_O_CLOCK


@pytest.mark.parametrize(
    "value",
    [
        *("", "yesterday", "03/03/2026", "2026-13-01", "2026-03-03T25:00:00Z", "1712120900000000000", "9" * 5000),
        *("UTC", "2026-03-03 UTC", "32 Mar 2026 09:00:00 GMT", "Tue, 03 Mar 2026", "3 Mar 26 09:00 Z", "1772528400."),
        *(True, 0, -1, 1e300, 10**19, 10**400, float("nan"), float("inf"), [], {}, [1772528400], None),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_no_moment_is_passed_over(value: Any) -> None:
    """P8."""
    assert read_moment(value) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    """P8."""
    read_moment(text)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(4000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_every_form_says_the_same(moment: datetime) -> None:
    moment = moment.replace(microsecond=0)
    seconds = moment.timestamp()
    forms: list[Any] = [moment.isoformat(), format_datetime(moment), moment.strftime("%Y-%m-%d %H:%M:%S UTC")]
    if seconds >= 10**8:
        forms += [int(seconds), int(seconds * 1000), int(seconds * 10**6), f"{seconds:.3f}"]
    assert {read_moment(form) for form in forms} == {seconds}
