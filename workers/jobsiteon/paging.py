"""How a list goes on. JobsiteOn does not document it, so the forms of other APIs are recognised.

    the list            the body itself; or its `data`, `items`, `results`, `records`, or the resource's name
    the next page       a URL: header `Link`, or `next`, `next_url`, `next.href`
                        a cursor: `next_cursor`, `cursor`, `next_page_token`, `nextPageToken`, …
                        a number: `next_page`; `page` below `total_pages`, `last_page`, …
                        `has_more` alone: the id of the last item, as `starting_after`
    where it says so    at the top, or in `links`, `_links`, `meta`, `pagination`, `paging`, `page_info`

What says nothing of a next page is whole. What repeats itself or never ends is an error: a list that is
cut short must not pass for a whole one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urljoin

from workers.jobsiteon.answers import Answer
from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import BadResponse

MOST_PAGES = 1000
"""At 100 requests a minute, ten minutes of nothing else."""

_LISTS = ("data", "items", "results", "records")
_PLACES = ("links", "_links", "meta", "pagination", "paging", "page_info", "pageInfo")
_URLS = ("next", "next_url", "nextUrl", "next_page_url")
_CURSORS = {
    "next_cursor": "cursor",
    "nextCursor": "cursor",
    "cursor": "cursor",
    "next_page_token": "page_token",
    "nextPageToken": "pageToken",
    "end_cursor": "after",
}
_NUMBERS = ("page", "current_page", "currentPage", "page_number")
_TOTALS = ("total_pages", "totalPages", "last_page", "lastPage", "page_count", "pages")
_MORE = ("has_more", "hasMore", "has_next", "has_next_page", "hasNextPage")

Next = str | Mapping[str, Any] | None
"""The URL of the next page, or the parameters that ask for it; None after the last."""


class Paging(Protocol):
    """A way of paging."""

    def items(self, resource: str, body: Any) -> list[Any] | None:
        """The items of a page; None if it is not a list at all."""

    def next(self, answer: Answer, items: list[Any]) -> Next:
        """What to ask for after a page."""


class AnyForm:
    """Recognises the forms above."""

    def items(self, resource: str, body: Any) -> list[Any] | None:
        """The list in a page's body."""
        if isinstance(body, list):
            return body
        return next((body[name] for name in (*_LISTS, resource) if isinstance(body.get(name), list)), None)

    def next(self, answer: Answer, items: list[Any]) -> Next:
        """What the page says of the next."""
        body = answer.data if isinstance(answer.data, dict) else {}
        said: dict[str, Any] = {}
        for place in (body, *(body.get(name) for name in _PLACES)):
            if isinstance(place, dict):
                said = place | said
        more = next((said[name] for name in _MORE if isinstance(said.get(name), bool)), None)
        if more is False:
            return None
        return answer.next_link or _named(said) or _counted(said) or (_after_last(items) if more else None)


def _named(said: dict[str, Any]) -> Next:
    for name in _URLS:
        value = said.get(name)
        url = value.get("href") if isinstance(value, dict) else value
        if isinstance(url, str) and ("/" in url or url.startswith("?")):
            return url
        if isinstance(url, str) and url:
            return {"cursor": url}
    for name, parameter in _CURSORS.items():
        if isinstance(said.get(name), str) and said[name]:
            return {parameter: said[name]}
    return None


def _counted(said: dict[str, Any]) -> Next:
    if _is_number(said.get("next_page")):
        return {"page": said["next_page"]}
    page = next((said[name] for name in _NUMBERS if _is_number(said.get(name))), None)
    total = next((said[name] for name in _TOTALS if _is_number(said.get(name))), None)
    return {"page": page + 1} if page is not None and total is not None and page < total else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _after_last(items: list[Any]) -> Next:
    last = items[-1] if items else None
    id = last.get("id") if isinstance(last, dict) else None
    return {"starting_after": id} if id else {}


class Walk:
    """The way through a list, without I/O: ask for `call`, give the answer to `page`, until `call` is None."""

    def __init__(self, call: Call, base: str, paging: Paging) -> None:
        self.call: Call | None = call
        self._base = base
        self._paging = paging
        self._resource = call.resource
        self._pages = 0
        self._last: list[Any] | None = None

    def page(self, answer: Answer) -> list[Any]:
        """The items of a page.

        Raises:
            BadResponse: it is not a page, or it shows that the way of paging is not understood.
        """
        assert self.call is not None  # noqa: S101 - for the type checker
        items = self._paging.items(self._resource, answer.data)
        if items is None:
            raise BadResponse(f"{self.call}: there is no list in the answer.")
        if items and items == self._last:
            raise BadResponse(f"{self.call}: the next page is the same again; this way of paging is not known here.")
        self._last = items
        self._pages += 1
        self.call = self._next(self.call, self._paging.next(answer, items))
        return items

    def _next(self, call: Call, next: Next) -> Call | None:
        if next is None:
            return None
        if self._pages >= MOST_PAGES or not next:
            raise BadResponse(f"{call}: after {self._pages} pages there are more, and no way to them.")
        if isinstance(next, str):
            try:
                # Whose host it is is judged where the request is sent, as for a redirect.
                return replace(call, url=urljoin(call.url or self._base + call.path, next), params={})
            except ValueError:
                raise BadResponse(f"{call}: the next page has no valid URL.") from None
        return replace(call, params={**call.params, **next})
