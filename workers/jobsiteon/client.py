"""The client for plain functions."""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Self

import httpx
import stamina

from app.config.settings import Settings
from workers import steps
from workers.jobsiteon import exchange
from workers.jobsiteon.answers import Answer
from workers.jobsiteon.cache import Cache
from workers.jobsiteon.calls import Call, canonical, element
from workers.jobsiteon.paging import AnyForm, Paging, Walk
from workers.jobsiteon.retries import SCHEDULE, Deadline, backoff
from workers.jobsiteon.wire import Departures, Wire

Data = dict[str, Any]
Items = list[Any]


class JobsiteOn:
    """JobsiteOn's API. Make one a process, after forking: it keeps a pool of connections, and is thread-safe.

    What goes wrong is raised as `ApiError`, also what was refused before it was sent.
    """

    def __init__(self, settings: Settings, paging: Paging | None = None) -> None:
        """A client with the key, address and limits of the settings.

        Raises:
            ConfigError: the key cannot be sent in a header.
        """
        self._settings = settings
        self._paging = paging or AnyForm()
        self._departures = Departures(settings)
        self._cache = Cache(settings, self._departures.key)
        self.contacts = EditableResource(self, "contacts")
        self.jobs = EditableResource(self, "jobs")
        self.invoices = EditableResource(self, "invoices")
        self.payments = Resource(self, "payments")
        self.pricebook = EditableResource(self, "pricebook")
        self.properties = EditableResource(self, "properties")

    def get(self, path: str, /, **params: Any) -> Data:
        """The object at a path such as `/contacts/con_1001`, from the cache while it is fresh."""
        return self._answer(Call("GET", canonical("GET", path), params)).data  # type: ignore[no-any-return]

    def list(self, path: str, /, **params: Any) -> "Pages":
        """The objects of a list such as `/invoices`, fetched page by page as they are asked for."""
        return Pages(self, Call("GET", canonical("GET", path), params, lists=True))

    def create(self, path: str, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Creates an object, and returns it as JobsiteOn does. See `update` for the key."""
        return self._write(Call("POST", canonical("POST", path), data=data, idempotency_key=idempotency_key))

    def update(self, path: str, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Changes some fields of an object, and returns it as JobsiteOn does.

        The key is sent as `Idempotency-Key`. Within a handler or `event.once` it need not be given:
        it is made of the event, the step, what is written, and the number of identical writes before it.
        """
        return self._write(Call("PATCH", canonical("PATCH", path), data=data, idempotency_key=idempotency_key))

    def invalidate(self, entity: str, id: str | None = None) -> None:
        """Forgets what is cached of a resource, as after a webhook about one of its objects, `id`.

        All of its objects are forgotten: one of them may show up in the answers about others.
        `entity` is as in the event's type, `invoice`, or as in the path, `invoices`; others have no effect.
        """
        self._cache.invalidate(entity)

    def use(self, settings: Settings) -> None:
        """From now on works with the key of these settings. What is on its way goes on with the one before.

        Raises:
            ConfigError: the key cannot be sent in a header. The one before stays.
        """
        self._departures.use(settings)
        self._cache = Cache(settings, self._departures.key)

    def close(self) -> None:
        """Closes all connections. A client that is used again opens new ones."""
        if http := self.__dict__.pop("_http", None):
            http.close()
        self._departures.close()
        self._cache.close()

    @cached_property
    def _http(self) -> httpx.Client:
        wire = Wire(self._departures, exchange.POOL)
        return httpx.Client(transport=wire, **exchange.options(self._settings))

    def _write(self, call: Call) -> Data:
        call = exchange.write(call, partial(steps.write_key, call.method, call.path))
        try:
            return self._answer(call).data  # type: ignore[no-any-return]
        finally:  # what failed may have been done all the same
            self._cache.invalidate(call.resource)

    def _answer(self, call: Call) -> Answer:
        deadline = Deadline(self._settings.api_timeout)
        try:
            for attempt in stamina.retry_context(backoff(call, deadline), **SCHEDULE):
                with attempt:
                    return self._try(call, deadline)
        except BaseException as error:
            if not isinstance(error, Exception):
                # A handler's timeout strikes anywhere, also between two lines of httpcore: then a connection
                # may stay in use for ever, or hold half an answer. None of them is used again.
                self.close()
            raise
        raise AssertionError("unreachable: the last attempt raises or returns")

    def _try(self, call: Call, deadline: Deadline) -> Answer:
        with exchange.one_try(call) as log:
            request = exchange.request(self._http, call, deadline)
            cache = self._cache  # the same before and after, also if keys change meanwhile
            found = cache.look(call, request)
            if answer := exchange.kept_answer(call, found):
                log.update(status=int(httpx.codes.OK), cached=True)
                return answer
            request.headers.update(found.conditions)
            response = self._http.send(request, stream=True, follow_redirects=call.is_safe)
            try:
                log.update(status=response.status_code)
                received = exchange.Received(call, deadline, response)
                for piece in response.iter_raw():
                    received.add(piece)
            finally:
                response.close()
            return received.answer(cache, found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<JobsiteOn {self._settings.api_url}>"


class Pages:
    """A list: iterating gives its objects, `pages()` gives them by page. Each iteration begins anew."""

    def __init__(self, client: JobsiteOn, call: Call) -> None:
        self._client = client
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[Items]:
        """The pages, each fetched when it is asked for."""
        walk = Walk(self._call, self._client._settings.api_url, self._client._paging)
        while walk.call:
            yield walk.page(self._client._answer(walk.call))


class Resource:
    """One of the API's resources."""

    def __init__(self, client: JobsiteOn, name: str) -> None:
        self._client = client
        self._name = name

    def get(self, id: str | int, /, **params: Any) -> Data:
        """The object with an id."""
        return self._client.get(element(self._name, id), **params)

    def list(self, **params: Any) -> Pages:
        """All objects, or those that the parameters tell."""
        return self._client.list(f"/{self._name}", **params)

    def create(self, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Creates an object."""
        return self._client.create(f"/{self._name}", data, idempotency_key=idempotency_key)


class EditableResource(Resource):
    """A resource whose objects can be changed: all but payments."""

    def update(self, id: str | int, data: Data, *, idempotency_key: str | None = None) -> Data:
        """Changes some fields of the object with an id."""
        return self._client.update(element(self._name, id), data, idempotency_key=idempotency_key)
