"""What an answer means: its status first, then its body. Pure, and raises nothing but API errors."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from workers.jobsiteon import links
from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import (
    ApiError,
    BadResponse,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)
from workers.retry_after import asked_by

LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""More than this is not believed: the documented limit is one of a minute."""
UNSAID_RETRY_AFTER_SECONDS = 10.0
"""For a 429 without Retry-After: some of the minute's places are free again by then."""

_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unreachable,
    410: NotFound,
    425: Unreachable,
}


@dataclass(frozen=True)
class Answer:
    """A validated answer."""

    data: Any = field(repr=False)
    next_link: str | None = field(default=None, repr=False)
    """The URL of the next page by the header `Link` (RFC 8288)."""
    linked: bool = False
    """Whether the header `Link` has been used for paging at all: without a next page, this is the last."""
    body: bytes = field(default=b"", repr=False)
    links: list[str] = field(default_factory=list, repr=False)
    """What it was read from: the body and the headers `Link`."""


def interpret(call: Call, status: int, headers: httpx.Headers, body: bytes) -> Answer:
    """The data of an answer.

    Raises:
        ApiError: it has none.
    """
    if not 200 <= status < 300:  # noqa: PLR2004 - success, in HTTP
        raise _error(call, status, headers)
    if not body and not call.is_safe:
        return Answer({})  # it is done, and there is nothing to say about it
    try:
        # Not orjson, which makes integers beyond 64 bits inexact and refuses a byte order mark.
        data = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict | list if call.lists else dict):
        raise BadResponse(f"{call}: {status}, but the body is not the JSON that was asked for.", status)
    if not call.lists:
        return Answer(_bare(data), body=body)
    named = headers.get_list("link")
    try:
        found = links.by_relation(named)
    except ValueError:
        raise BadResponse(f"{call}: {status}, but the header Link, which may name the next page, is broken.") from None
    is_linked = not found.keys().isdisjoint({"first", "prev", "previous", "last"})
    return Answer(data, found.get("next"), is_linked, body, named)


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait by the header `Retry-After`, a number or a date; None if there is none that is valid."""
    seconds = asked_by(headers.get_list("retry-after"), headers.get_list("date"))
    return None if seconds is None else min(seconds, LONGEST_RETRY_AFTER_SECONDS)


def _error(call: Call, status: int, headers: httpx.Headers) -> ApiError:
    what = f"{call}: {status}"
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimited(what, _or(retry_after(headers), UNSAID_RETRY_AFTER_SECONDS), status)
    if status >= 500:  # noqa: PLR2004 - the server's fault, in HTTP
        return ServerError(what, status, retry_after(headers))
    if status >= 400:  # noqa: PLR2004 - the client's fault, in HTTP
        return _BY_STATUS.get(status, Invalid)(what, status)
    return BadResponse(f"{what} is no answer to this call.", status)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _bare(data: dict[str, Any]) -> dict[str, Any]:
    """The object itself, should it come in an envelope: `{"data": {…}}` (how it comes is not documented)."""
    inner = data.get("data")
    return inner if isinstance(inner, dict) and "id" not in data else data


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are no JSON
