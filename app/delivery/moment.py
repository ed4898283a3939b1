"""A moment in any of the usual forms: ISO 8601, RFC 2822, what languages print, unix time in three units."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_TOO_LATE = 1e11
"""Seconds: the year 5138. A unix time from here on is in a smaller unit."""
_UNITS_PER_SECOND = (1, 1e3, 1e6)
"""Seconds, milliseconds, microseconds."""

_NUMBER = re.compile(r"\d{9,}(?:\.\d+)?", re.ASCII)
"""A unix time in quotes. Fewer digits are a date: `20260303`."""
_SPACED_ZONE = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?) ?(?:(?:UTC|GMT|Z)|([+-]\d\d:?\d\d)(?: UTC| GMT)?)",
    re.ASCII | re.IGNORECASE,
)
"""`2026-03-03 09:00:00 UTC` as Ruby prints it, `2026-03-03 09:00:00 +0000 UTC` as Go does."""
_RFC_2822 = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?\d\d? (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} "
    r"\d\d:\d\d(?::\d\d)? (?:[+-]\d{4}|GMT|UTC?|Z|[ECMP][SD]T)(?: \([A-Za-z ]{1,40}\))?",
    re.ASCII | re.IGNORECASE,
)


def read_moment(value: Any) -> float | None:
    """Seconds since 1970, or None if the value is no moment. Without a zone it is UTC."""
    if isinstance(value, str):
        is_number = value[:5].isdecimal() and _NUMBER.fullmatch(value)  # most are dates: `2026-`
        return _from_number(float(value)) if is_number else _from_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return _from_number(float(value))
        except OverflowError:
            return None
    return None


def _from_number(value: float) -> float | None:
    for per_second in _UNITS_PER_SECOND:
        if 0 < value / per_second < _TOO_LATE:
            return value / per_second
    return None


def _from_text(text: str) -> float | None:
    try:
        moment = _parse(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        if match := _SPACED_ZONE.fullmatch(text):
            return datetime.fromisoformat(match[1] + (match[2] or "+00:00"))
        if _RFC_2822.fullmatch(text):
            return parsedate_to_datetime(text)
        raise
