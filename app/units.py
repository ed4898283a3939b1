"""Durations and sizes as people write them."""

import re
from decimal import Decimal
from typing import Any

_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2}


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `30d`, `1h30m` or `500ms`.

    Raises:
        ValueError: it is none of these; a number without a unit neither, because 7 may be seconds as well as days.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdw])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("write a duration such as 500ms, 90s, 1h30m or 30d" + _missing_unit(text))
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)


def _missing_unit(text: str) -> str:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return ""
    return f"; if {text} is meant in days, write {text}d, and in seconds, write {text}s"


def parse_size(value: Any) -> Any:
    """Bytes from `1048576`, `1MiB` or `500kB`. K and M alone are binary, as in the configuration of web servers.

    Not pydantic's `ByteSize`: it reads `1,5MB` as one byte, `10 000` as ten, and `1M` as a million.

    Raises:
        ValueError: it is none of these.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError("write a size such as 1048576, 500kB or 1MiB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def format_duration(seconds: float) -> str:
    """The shortest form that `parse_duration` reads back."""
    for unit, size in sorted(_DURATION_UNITS.items(), key=lambda item: -item[1]):
        if seconds >= size and seconds % size == 0 and unit != "w":
            return f"{seconds / size:.0f}{unit}"
    return f"{Decimal(repr(seconds)).normalize():f}s"  # never with an exponent


def format_size(size: int) -> str:
    """The shortest form that `parse_size` reads back."""
    for unit, factor in (("MiB", 1024**2), ("kB", 1000)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
