"""What another server asks for by the header `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date."""

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
    try:
        date = parsedate_to_datetime(value)
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), MOST_SECONDS)
