"""The API. What it assumes is in the package's docstring."""

import asyncio
import gzip
import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any, Literal
from uuid import uuid4

import orjson
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.delivery.samples import sample

PREFIX = "/v1"
RESOURCES = {
    "contacts": ("GET", "POST", "PATCH"),
    "jobs": ("GET", "POST", "PATCH"),
    "invoices": ("GET", "POST", "PATCH"),
    "payments": ("GET", "POST"),
    "pricebook": ("GET", "POST", "PATCH"),
    "properties": ("GET", "POST", "PATCH"),
}
"""The documented resources and their methods (API Access and Webhooks)."""
LIMIT, WINDOW_SECONDS = 100, 60.0
PAGE_SIZE = 2

Permission = Literal["none", "read", "write"]
Paging = Literal[
    "cursor",
    "link",
    "number",
    "has_more",
    "url",
    "nested",
    "counted",
    "offset",
    "next_number",
    "next_link",
    "bare",
    "stuck",
]


@dataclass
class Permissions:
    """What a key may do; to write includes to read."""

    default: Permission = "write"
    entities: Mapping[str, Permission] = field(default_factory=dict)

    def allow(self, resource: str, method: str) -> bool:
        granted = self.entities.get(resource, self.default)
        return granted == "write" or (granted == "read" and method == "GET")


@dataclass
class Seen:
    """A request, as it arrived."""

    at: float
    method: str
    path: str
    query: str
    key: str | None
    idempotency_key: str | None
    body: bytes
    cookie: str | None = None
    accept_encoding: str | None = None
    status: int = 0


@dataclass
class CannedAnswer:
    """An answer on demand, instead of the one that is due."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before it."""
    drip: float = 0.0
    """Seconds before each of its bytes."""
    cut: int = 0
    """Bytes that are announced but never come."""


class Api:
    """An ASGI application. Tests read `seen` and put into `next_answers` what is to go wrong."""

    def __init__(self, key: str, limit: int = LIMIT, window: float = WINDOW_SECONDS) -> None:
        self.keys: dict[str, Permissions] = {key: Permissions()}
        self.limit, self.window = limit, window
        self.paging: Paging = "cursor"
        self.cache_control: str | None = None
        self.cookie: str | None = None
        """What every answer sets."""
        self.gzips = False
        """Whether bodies are compressed."""
        self.delay = 0.0
        """Seconds before every answer."""
        self.next_answers: deque[CannedAnswer] = deque()
        self.before_answer: Callable[[], object] | None = None
        """Called when an answer is due: what happens while the request is under way."""
        self.seen: list[Seen] = []
        self._counted: dict[str, deque[float]] = {}
        self._lock = Lock()
        self.objects: dict[str, dict[str, dict[str, Any]]] = {resource: {} for resource in RESOURCES}
        for resource in RESOURCES:
            entity = "property" if resource == "properties" else resource.removesuffix("s")
            first = orjson.loads(sample(f"{entity}.created"))["data"]
            for number in range(5):
                copy = first | {"id": first["id"][:-1] + str(number + 1)}
                self.objects[resource][copy["id"]] = copy

    def most_in_window(self, seconds: float, status: int | None = None) -> int:
        """The most requests that came within any window of this length."""
        times = sorted(seen.at for seen in self.seen if status is None or seen.status == status)
        return max((sum(1 for t in times if start <= t < start + seconds) for start in times), default=0)

    def statuses(self) -> list[int]:
        return [seen.status for seen in self.seen]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        at = monotonic()
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        seen = Seen(
            at=at,
            method=request.method,
            path=scope["path"],
            query=request.url.query,
            key=key if scheme == "Bearer" else None,
            idempotency_key=request.headers.get("idempotency-key"),
            body=await request.body(),
            cookie=request.headers.get("cookie"),
            accept_encoding=request.headers.get("accept-encoding"),
        )
        with self._lock:
            self.seen.append(seen)
            answer = self._refuse(seen) or (
                self.next_answers.popleft() if self.next_answers else self._serve(request, seen)
            )
            seen.status = answer.status
        if self.before_answer:
            self.before_answer()
        await self._send(answer, send)

    def _refuse(self, seen: Seen) -> CannedAnswer | None:
        _, _, resource, *_ = [*seen.path.split("/"), "", ""]
        if seen.key is None or seen.key not in self.keys:
            return _json(401, {"error": "unauthorized"})
        counted = self._counted.setdefault(seen.key, deque())
        while counted and counted[0] <= seen.at - self.window:
            counted.popleft()
        if len(counted) >= self.limit:
            free_in = counted[0] + self.window - seen.at
            return _json(429, {"error": "rate limited"}, {"retry-after": str(math.ceil(free_in))})
        counted.append(seen.at)
        if seen.method not in RESOURCES.get(resource, ("GET",)):
            return _json(405, {"error": "method not allowed"})
        if not self.keys[seen.key].allow(resource, seen.method):
            return _json(403, {"error": "forbidden"})
        return None

    def _serve(self, request: Request, seen: Seen) -> CannedAnswer:
        resource, _, id = seen.path.removeprefix(PREFIX + "/").partition("/")
        objects = self.objects.get(resource)
        if objects is None or (id and id not in objects):
            return _json(404, {"error": "not found"})
        if seen.method == "GET":
            answer = _json(200, objects[id]) if id else self._page(request, list(objects.values()))
            return self._cacheable(request, answer)
        try:
            data = orjson.loads(seen.body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return _json(422, {"error": "invalid"})
        id = id or str(data.get("id") or f"{resource}_{uuid4().hex[:8]}")
        objects[id] = objects.get(id, {}) | data | {"id": id}
        return _json(201 if seen.method == "POST" else 200, objects[id])

    def _cacheable(self, request: Request, answer: CannedAnswer) -> CannedAnswer:
        answer.headers["etag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:16]}"'
        if self.cache_control is not None:
            answer.headers["cache-control"] = self.cache_control
        if request.headers.get("if-none-match") == answer.headers["etag"]:
            return CannedAnswer(
                304, b"", {name: answer.headers[name] for name in ("etag", "cache-control") if name in answer.headers}
            )
        return answer

    def _page(self, request: Request, objects: list[dict[str, Any]]) -> CannedAnswer:
        """Sends the form of paging that the test has chosen; the client has to tell by itself."""
        query = request.query_params
        ids = [each["id"] for each in objects]
        if self.paging == "bare":
            return _json(200, objects)
        if self.paging in _NUMBERED:
            return _json(200, _numbered(self.paging, int(query.get("page", 1)), objects))
        if self.paging == "offset":
            offset, count = int(query.get("offset", 0)), len(objects)
            items = objects[offset : offset + PAGE_SIZE]
            return _json(200, {"results": items, "limit": PAGE_SIZE, "offset": offset, "total_count": count})
        after = query.get("starting_after" if self.paging == "has_more" else "cursor")
        begin = ids.index(after) + 1 if after and self.paging != "stuck" else 0
        items, more = objects[begin : begin + PAGE_SIZE], begin + PAGE_SIZE < len(objects)
        last = items[-1]["id"] if more else None
        url = f"{request.url.path}?cursor={last}" if more else None
        match self.paging:
            case "link":
                return _json(200, items, {"link": f'<{url}>; rel="next"'} if url else {})
            case "url":
                return _json(
                    200, {"results": items, "links": {"next": url and str(request.url.replace(query=f"cursor={last}"))}}
                )
            case "next_link":
                return _json(200, {"value": [], "items": items} | ({"nextLink": url} if url else {}))
            case "has_more":
                return _json(200, {"data": items, "has_more": more})
            case _:
                return _json(200, {"data": items, "next_cursor": last})

    async def _send(self, answer: CannedAnswer, send: Send) -> None:
        await asyncio.sleep(max(answer.delay, self.delay))
        headers = {"content-type": "application/json"} | answer.headers
        if self.cookie is not None:
            headers.setdefault("set-cookie", self.cookie)
        body = answer.body
        if self.gzips and body and "content-encoding" not in headers:
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        if answer.status != 304:
            headers["content-length"] = str(len(body) + answer.cut)
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        for piece in (bytes([byte]) for byte in body) if answer.drip else ():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(answer.drip)
        rest = b"" if answer.drip else body
        await send({"type": "http.response.body", "body": rest, "more_body": bool(answer.cut)})
        # If something was announced that does not come, the server closes the connection now.


_NUMBERED = ("number", "nested", "counted", "next_number")


def _numbered(paging: Paging, page: int, objects: list[dict[str, Any]]) -> dict[str, Any]:
    """A page that is asked for by its number."""
    items, pages = objects[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], math.ceil(len(objects) / PAGE_SIZE)
    match paging:
        case "nested":
            return {"data": items, "meta": {"pagination": {"current_page": page, "total_pages": pages}}}
        case "counted":
            return {"data": items, "page": page, "per_page": PAGE_SIZE, "total": len(objects)}
        case "next_number":
            return {"data": items, "next": page + 1 if page < pages else None}
        case _:
            return {"items": items, "meta": {"page": page, "total_pages": pages}}


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> CannedAnswer:
    return CannedAnswer(status, orjson.dumps(value), dict(headers or {}))
