"""The client for async functions: `client.py` with `await`. All that can be shared is."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Self

import httpx
import stamina

from app.config.settings import Settings
from workers import steps
from workers.jobsiteon import exchange
from workers.jobsiteon.answers import Answer
from workers.jobsiteon.cache import Cache
from workers.jobsiteon.calls import Call, canonical, element
from workers.jobsiteon.client import Data, Items
from workers.jobsiteon.paging import AnyForm, Paging, Walk
from workers.jobsiteon.retries import SCHEDULE, Deadline, backoff
from workers.jobsiteon.wire import AsyncWire, Departures


class AsyncJobsiteOn:
    """JobsiteOn's API for `async def` handlers; see `JobsiteOn`. Serves every event loop it is used in."""

    def __init__(self, settings: Settings, paging: Paging | None = None) -> None:
        """A client with the key, address and limits of the settings.

        Raises:
            ConfigError: the key cannot be sent in a header.
        """
        self._settings = settings
        self._paging = paging or AnyForm()
        self._departures = Departures(settings)
        self._cache = Cache(settings, self._departures.key)
        # Connections belong to the event loop that has opened them. What is asked of Redis is asked in threads.
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self.contacts = AsyncEditableResource(self, "contacts")
        self.jobs = AsyncEditableResource(self, "jobs")
        self.invoices = AsyncEditableResource(self, "invoices")
        self.payments = AsyncResource(self, "payments")
        self.pricebook = AsyncEditableResource(self, "pricebook")
        self.properties = AsyncEditableResource(self, "properties")

    async def get(self, path: str, /, **params: Any) -> Data:
        """The object at a path such as `/contacts/con_1001`, from the cache while it is fresh."""
        return (await self._answer(Call("GET", canonical("GET", path), params))).data  # type: ignore[no-any-return]

    def list(self, path: str, /, **params: Any) -> "AsyncPages":
        """The objects of a list such as `/invoices`, fetched page by page as they are asked for."""
        return AsyncPages(self, Call("GET", canonical("GET", path), params, lists=True))

    async def create(self, path: str, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Creates an object; see `JobsiteOn.create`."""
        return await self._write(Call("POST", canonical("POST", path), data=data, idempotency_key=idempotency_key))

    async def update(self, path: str, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Changes some fields of an object; see `JobsiteOn.update`."""
        return await self._write(Call("PATCH", canonical("PATCH", path), data=data, idempotency_key=idempotency_key))

    async def invalidate(self, entity: str, id: str | None = None) -> None:
        """Forgets what is cached; see `JobsiteOn.invalidate`."""
        await asyncio.to_thread(self._cache.invalidate, entity)

    def use(self, settings: Settings) -> None:
        """From now on works with the key of these settings; see `JobsiteOn.use`."""
        self._departures.use(settings)
        self._cache = Cache(settings, self._departures.key)

    async def aclose(self) -> None:
        """Closes all connections of this event loop."""
        if http := self._clients.pop(asyncio.get_running_loop(), None):
            await http.aclose()
        self._departures.close()
        self._cache.close()

    @property
    def _http(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # One that does not run may never run again: a handler's timeout leaves its loop as it is.
            self._clients = {loop: client for loop, client in self._clients.items() if loop.is_running()}
            wire = AsyncWire(self._departures, exchange.POOL)
            self._clients[loop] = httpx.AsyncClient(transport=wire, **exchange.options(self._settings))
        return self._clients[loop]

    async def _write(self, call: Call) -> Data:
        call = exchange.write(call, partial(steps.write_key, call.method, call.path))
        try:
            return (await self._answer(call)).data  # type: ignore[no-any-return]
        finally:  # what failed may have been done all the same
            await asyncio.to_thread(self._cache.invalidate, call.resource)

    async def _answer(self, call: Call) -> Answer:
        deadline = Deadline(self._settings.api_timeout)
        async for attempt in stamina.retry_context(backoff(call, deadline), **SCHEDULE):
            with attempt:
                return await self._try(call, deadline)
        raise AssertionError("unreachable: the last attempt raises or returns")

    async def _try(self, call: Call, deadline: Deadline) -> Answer:
        with exchange.one_try(call) as log:
            request = exchange.request(self._http, call, deadline)
            cache = self._cache  # the same before and after, also if keys change meanwhile
            found = await asyncio.to_thread(cache.look, call, request)
            if answer := exchange.kept_answer(call, found):
                log.update(status=int(httpx.codes.OK), cached=True)
                return answer
            request.headers.update(found.conditions)
            async with asyncio.timeout(deadline.left):
                response = await self._http.send(request, stream=True, follow_redirects=call.is_safe)
                try:
                    log.update(status=response.status_code)
                    received = exchange.Received(call, deadline, response)
                    async for piece in response.aiter_raw():
                        received.add(piece)
                finally:
                    await response.aclose()
            return await asyncio.to_thread(received.answer, cache, found)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncJobsiteOn {self._settings.api_url}>"


class AsyncPages:
    """A list: `async for` gives its objects, `pages()` gives them by page. Each iteration begins anew."""

    def __init__(self, client: AsyncJobsiteOn, call: Call) -> None:
        self._client = client
        self._call = call

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for page in self.pages():
            for item in page:
                yield item

    async def pages(self) -> AsyncIterator[Items]:
        """The pages, each fetched when it is asked for."""
        walk = Walk(self._call, self._client._settings.api_url, self._client._paging)
        while walk.call:
            yield walk.page(await self._client._answer(walk.call))


class AsyncResource:
    """One of the API's resources."""

    def __init__(self, client: AsyncJobsiteOn, name: str) -> None:
        self._client = client
        self._name = name

    async def get(self, id: str | int, /, **params: Any) -> Data:
        """The object with an id."""
        return await self._client.get(element(self._name, id), **params)

    def list(self, **params: Any) -> AsyncPages:
        """All objects, or those that the parameters tell."""
        return self._client.list(f"/{self._name}", **params)

    async def create(self, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Creates an object."""
        return await self._client.create(f"/{self._name}", data, idempotency_key=idempotency_key)


class AsyncEditableResource(AsyncResource):
    """A resource whose objects can be changed: all but payments."""

    async def update(self, id: str | int, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Changes some fields of the object with an id."""
        return await self._client.update(element(self._name, id), data, idempotency_key=idempotency_key)
