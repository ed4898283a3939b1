"""What `Retry-After` asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.retry_after import MOST_SECONDS, asked_by, seconds_asked

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("007", 7),
        ("9" * 5000, MOST_SECONDS),
        ("Wed, 25 Nov 2026 13:00:00 GMT", 3600),
        ("Wed, 25 Nov 2026 13:00:00 +0100", 0),
        ("Wed, 25 Nov 2026 11:00:00 -0200", 3600),
        ("Wed, 25 Nov 2026 13:00:00 -0000", 3600),
        ("Wednesday, 25-Nov-26 13:00:00 GMT", 3600),  # the two obsolete forms, which RFC 9110 has read
        ("Wed Nov 25 13:00:00 2026", 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MOST_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 -2359", MOST_SECONDS),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_what_is_a_number_or_a_date_is_a_wait(value: str, seconds: float) -> None:
    assert seconds_asked(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "-1", "+1", "1.5", "1e9", "0x10", "1_000", "1 2", "1, 2", "soon", "NaN", "inf"),
        *("\u0661\u0662", "\u00b2", "\uff11\uff12"),  # digits, but not ASCII ones
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
        "Wed, 25 Nov 2026 13:00:00 +99999999999999",
        "Wed, 99 Nov 2026 13:00:00 GMT",
        "Wed, 25 Nov 2026 99:00:00 GMT",
    ],
)
def test_what_is_neither_asks_for_nothing(value: str) -> None:
    assert seconds_asked(value, NOW) is None


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,30} [A-Z][a-z]{2} \d{1,30} \d+:\d+:\d+ ([+-]\d+|GMT|)"))
def test_nothing_that_a_server_may_send_raises(value: str) -> None:
    seconds = seconds_asked(value, NOW)
    assert seconds is None or 0 <= seconds <= MOST_SECONDS


def written(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)


@pytest.mark.parametrize("wrong", [timedelta(days=-400), timedelta(hours=-1), timedelta(), timedelta(days=3)])
def test_a_date_is_one_by_the_clock_of_who_has_sent_it(wrong: timedelta) -> None:
    theirs = datetime.now(UTC).replace(microsecond=0) + wrong
    assert asked_by([written(theirs + timedelta(seconds=120))], [written(theirs)]) == 120
    assert asked_by([written(theirs - timedelta(seconds=120))], [written(theirs)]) == 0


@pytest.mark.parametrize("dates", [[], [""], ["soon"], ["Wed, 99 Nov 2026 13:00:00 GMT"]])
def test_without_one_ours_counts(dates: list[str]) -> None:
    seconds = asked_by([written(datetime.now(UTC) + timedelta(seconds=120))], dates)
    assert seconds is not None
    assert 60 < seconds <= 120


@pytest.mark.parametrize(
    ("values", "seconds"),
    [([], None), ([""], None), (["x"], None), (["5", "30", "7"], 30), (["x", "0"], 0), (["-1", "5"], 5)],
)
def test_of_several_the_longest_counts(values: list[str], seconds: float | None) -> None:
    assert asked_by(values, []) == seconds


@given(st.lists(st.text()), st.lists(st.text()))
def test_whatever_is_said_is_no_error(values: list[str], dates: list[str]) -> None:
    seconds = asked_by(values, dates)
    assert seconds is None or 0 <= seconds <= MOST_SECONDS
