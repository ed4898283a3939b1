"""How a list goes on. JobsiteOn does not document it, so the forms of other APIs are recognised.

    the list            the body itself; or its `data`, `items`, `results`, `records`, or the resource's name
    the next page       a URL: header `Link`, or `next`, `next_url`, `next.href`, `nextLink`, …
                        a cursor: `next_cursor`, `cursor`, `next_page_token`, `nextPageToken`, …
                        a number: `next_page`, `next`; `page` below `total_pages`, `last_page`, …
                        counted: `page` and `per_page`, or `offset` and `limit`, below `total`, `total_count`, …
                        `has_more` alone: the id of the last item, as `starting_after`
    where it says so    at the top, or in `links`, `_links`, `meta`, `pagination`, `paging`, `page_info`,
                        or in one of these within another; links also as a list of `rel` and `href`

A list is whole where its page says so (no next page, the last of so many), or says nothing of pages at all.
A page that speaks of pages in words that are not known here, that repeats itself or never ends is an error,
and so is a list of fewer items than its pages say there are: a list that is cut short must not pass for a whole one.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urljoin

from workers.jobsiteon.answers import Answer
from workers.jobsiteon.calls import Call
from workers.jobsiteon.errors import BadResponse, TooMuch

MOST_PAGES = 1000
"""At 100 requests a minute, ten minutes of nothing else."""
_MOST_DIGITS = 9
DEEPEST = 3
"""How deep what is said of pages may stand: `meta.pagination.links`."""

_LISTS = ("data", "items", "results", "records")
_PLACES = ("links", "_links", "meta", "pagination", "paging", "page_info", "pageInfo")
_URLS = ("next", "next_url", "nextUrl", "next_page_url", "nextPageUrl", "next_link", "nextLink", "@odata.nextLink")
_CURSORS = {
    "next_cursor": "cursor",
    "nextCursor": "cursor",
    "cursor": "cursor",
    "next_page_token": "page_token",
    "nextPageToken": "pageToken",
    "end_cursor": "after",
    "endCursor": "after",
}
_NEXT_NUMBERS = ("next_page", "nextPage")
_NUMBERS = ("page", "current_page", "currentPage", "page_number", "pageNumber")
_SIZES = ("per_page", "perPage", "page_size", "pageSize", "limit")
_OFFSETS = ("offset", "skip", "start")
_COUNTS = (
    *("total", "total_count", "totalCount", "total_items", "totalItems", "total_results", "totalResults"),
    *("total_records", "totalRecords", "totalElements", "count"),
)
_TOTALS = ("total_pages", "totalPages", "last_page", "lastPage", "page_count", "pages")
_MORE = ("has_more", "hasMore", "has_next", "hasNext", "has_next_page", "hasNextPage")
_OF_PAGES = ("pagination", "paging", "page_info", "pageInfo")
"""The places in which there is nothing else: who sends one of them sends pages."""
_SAID = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}

_PROMISES = re.compile(
    r"(?:odata)?(?:has|is)?(?:next|truncated|continuation|lastevaluatedkey)"
    r"|(?:has|is)?more(?:items|results|records|pages|data|available)?$"
)
"""Names that promise more, whatever else is in them, without signs and capitals: `NextToken`, `is_truncated`."""
_OF_LIST = re.compile(r"meta|pag|link|cursor|nav")
"""What is in the names of objects that are about the list, rather than about what is in it."""
_NUMBERS_OF_PAGES = {"pages", "pagecount", "totalpages", "numpages", "numberofpages"}
_ENDS = {"done", "islast", "islastpage", "last", "complete"}
_NOTHING: tuple[Any, ...] = (None, "", False, 0, {}, [], "false", "0", "no", "null")

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
        """What the page says of the next; nothing to ask for (`{}`) if there seems to be one, in unknown words."""
        body = answer.data if isinstance(answer.data, dict) else {}
        said = _said(body)
        more = next((_SAID[said[name]] for name in _MORE if _is_flag(said.get(name))), None)
        if more is False:
            return None
        way = answer.next_link or _named(said) or _counted(said, items)
        if way is not None:
            return way
        if more:
            return _after_last(items)
        if _promises_more(body, has_position=_has_position(said)):
            return {}
        is_last = answer.linked or _says_it_is_last(said) or not items
        return None if is_last or not _speaks_of_pages(body, said) else {}


def announced(answer: Answer) -> int | None:
    """How many items a page says there are in all its pages together; None if it does not."""
    return _first_number(_said(answer.data), _COUNTS) if isinstance(answer.data, dict) else None


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """All that is said in the places for it. What stands further out counts, if something is said twice."""
    said: dict[str, Any] = {}
    places = [body]
    for _ in range(DEEPEST + 1):
        for place in places:
            said = place | said
        places = [inner for place in places for name in _PLACES if (inner := _object(place.get(name)))]
    return said


def _object(place: Any) -> dict[str, Any]:
    """The object in a place; links may also come as a list of what they lead to: `[{"rel": "next", "href": …}]`."""
    if isinstance(place, list):
        found = [link for link in place if isinstance(link, dict) and isinstance(link.get("rel"), str)]
        return {link["rel"]: link.get("href") for link in found}
    return place if isinstance(place, dict) else {}


def _named(said: dict[str, Any]) -> Next:
    for name in _URLS:
        value = said.get(name)
        url = value.get("href") if isinstance(value, dict) else value
        if isinstance(url, str) and ("/" in url or url.startswith("?")):
            return url
        if (number := _number(url)) is not None:
            return {"offset" if "offset" in said else "page": number}
        if isinstance(url, str) and url:
            return {"cursor": url}
    for name, parameter in _CURSORS.items():
        cursor = said.get(name)
        if (isinstance(cursor, str) and cursor) or _number(cursor):
            return {parameter: cursor}
    number = _first_number(said, _NEXT_NUMBERS)
    return None if number is None else {"page": number}


def _counted(said: dict[str, Any], items: list[Any]) -> Next:
    page, pages, size = (_first_number(said, names) for names in (_NUMBERS, _TOTALS, _SIZES))
    total = _first_number(said, _COUNTS)
    if page is not None:
        if pages is None and total is not None and size:
            pages = -(-total // size)
        goes_on = page < pages if pages is not None else bool(size and total is None and len(items) >= size)
        return {"page": page + 1} if goes_on else None
    for name in _OFFSETS:
        if (offset := _number(said.get(name))) is not None and items:
            end = offset + len(items)
            goes_on = end < total if total is not None else bool(size and len(items) >= size)
            return {name: end} if goes_on else None
    return None


def _says_it_is_last(said: dict[str, Any]) -> bool:
    """Whether a page that names no next one says so, rather than nothing."""
    nameable = (*_URLS, *_CURSORS, *_NEXT_NUMBERS)
    if any(name in said and said[name] in (None, "", False, 0, {}) for name in nameable):
        return True
    sizes = {_first_number(said, names) is not None for names in (_TOTALS, _COUNTS, _SIZES)}
    return _has_position(said) and True in sizes  # counted, and found to be the last


def _has_position(said: dict[str, Any]) -> bool:
    return any(_number(said.get(name)) is not None for name in (*_NUMBERS, *_OFFSETS))


def _promises_more(body: dict[str, Any], *, has_position: bool) -> bool:
    """Whether a page that names no next one in known words promises one in others."""
    for name, value in body.items():
        plain = re.sub(r"[\W_]", "", name).lower()
        if _PROMISES.match(plain) and value not in _NOTHING:
            return True
        if plain in _ENDS and value is False:
            return True
        if plain in _NUMBERS_OF_PAGES and not has_position and (_number(value) or 0) > 1:
            return True
        is_about_list = isinstance(value, dict) and _OF_LIST.search(plain)
        if is_about_list and _promises_more(value, has_position=has_position):
            return True
    return False


def _speaks_of_pages(body: dict[str, Any], said: dict[str, Any]) -> bool:
    words = (*_NUMBERS, *_OFFSETS, *_TOTALS)
    return any(name in said for name in words) or any(body.get(name) for name in _OF_PAGES)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | int | str) and value in _SAID


def _first_number(said: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((number for name in names if (number := _number(said.get(name))) is not None), None)


def _number(value: Any) -> int | None:
    """A number of items or pages, also where it is written as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


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
        self._items = 0
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
        self._items += len(items)
        next = self._paging.next(answer, items)
        total = announced(answer)
        if next is None and total is not None and total > self._items:
            raise BadResponse(
                f"{self.call}: {self._items} items came, of {total} that there are, and no way to the rest."
            )
        self.call = self._next(self.call, next)
        return items

    def _next(self, call: Call, next: Next) -> Call | None:
        if next is None:
            return None
        if self._pages >= MOST_PAGES:
            raise TooMuch(f"{call}: after {self._pages} pages there are more: ask for less, by parameters.")
        if not next:
            raise BadResponse(f"{call}: after {self._pages} pages there are more, and no way to them.")
        if isinstance(next, str):
            try:
                # Whose host it is is judged where the request is sent, as for a redirect.
                return replace(call, url=urljoin(call.url or self._base + call.path, next), params={})
            except ValueError:
                raise BadResponse(f"{call}: the next page has no valid URL.") from None
        return replace(call, params={**call.params, **next})
