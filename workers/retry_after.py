"""What another server asks for by the header `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date."""

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MOST_SECONDS = 30 * 86400.0
"""Longer waits are cut to this, so that callers need not fear infinity; each has a bound of its own below it."""


def seconds_asked(value: str, now: datetime) -> float | None:
    """Seconds to wait from `now` (with a time zone) on, 0 for a date in the past.

    None if the value is neither ASCII digits nor a date: empty, negative, `1e9`, a year that no calendar has.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MOST_SECONDS)
    date = _date(value)
    return None if date is None else min(max((date - now).total_seconds(), 0.0), MOST_SECONDS)


def asked_by(values: Iterable[str], dates: Iterable[str]) -> float | None:
    """The longest wait that an answer's headers `Retry-After` ask for; None if none of them is valid.

    A date is one by the clock of who has sent it. Its header `Date` tells what that clock showed, so that neither clock
    has to be right. Without it, ours counts.
    """
    said = [date for date in map(_date, dates) if date]
    now = said[-1] if said else datetime.now(UTC)
    return max((seconds for value in values if (seconds := seconds_asked(value, now)) is not None), default=None)


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)
