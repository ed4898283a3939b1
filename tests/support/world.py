"""The simulator's API with clients of it: both kinds behind one face, so that one test holds for both."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, Literal, Protocol, TypeVar

from app.config.settings import Settings
from app.simulator.api import Api
from tests.support.servers import serve
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn

TOKEN = "token-of-the-tests-0123456789"

T = TypeVar("T")
Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")


class Client(Protocol):
    """What both kinds can do."""

    def get(self, path: str, /, **params: Any) -> dict[str, Any]: ...
    def pages(self, path: str, /, **params: Any) -> list[list[Any]]: ...
    def items(self, path: str, /, **params: Any) -> list[Any]: ...
    def create(self, path: str, data: Any, *, idempotency_key: str | None = None) -> dict[str, Any]: ...
    def update(self, path: str, data: Any, *, idempotency_key: str | None = None) -> dict[str, Any]: ...
    def invalidate(self, entity: str, id: str | None = None) -> None: ...
    def close(self) -> None: ...


class Plain(JobsiteOn):
    """The client for plain functions."""

    def pages(self, path: str, /, **params: Any) -> list[list[Any]]:
        return list(self.list(path, **params).pages())

    def items(self, path: str, /, **params: Any) -> list[Any]:
        return list(self.list(path, **params))


class Driven:
    """The client for async functions, driven from outside."""

    def __init__(self, settings: Settings) -> None:
        self.inner = AsyncJobsiteOn(settings)
        self._runner = asyncio.Runner()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        # A runner keeps the context of its first run: the step of now has to be handed in.
        return self._runner.run(call, context=copy_context())

    def get(self, path: str, /, **params: Any) -> dict[str, Any]:
        return self._run(self.inner.get(path, **params))

    def pages(self, path: str, /, **params: Any) -> list[list[Any]]:
        async def collect() -> list[list[Any]]:
            return [page async for page in self.inner.list(path, **params).pages()]

        return self._run(collect())

    def items(self, path: str, /, **params: Any) -> list[Any]:
        async def collect() -> list[Any]:
            return [item async for item in self.inner.list(path, **params)]

        return self._run(collect())

    def create(self, path: str, data: Any, *, idempotency_key: str | None = None) -> dict[str, Any]:
        return self._run(self.inner.create(path, data, idempotency_key=idempotency_key))

    def update(self, path: str, data: Any, *, idempotency_key: str | None = None) -> dict[str, Any]:
        return self._run(self.inner.update(path, data, idempotency_key=idempotency_key))

    def invalidate(self, entity: str, id: str | None = None) -> None:
        self._run(self.inner.invalidate(entity, id))

    def close(self) -> None:
        self._run(self.inner.aclose())
        self._runner.close()


class World:
    """An API and the clients made for it."""

    def __init__(self, api: Api, url: str, settings: Settings) -> None:
        self.api = api
        self.url = url
        self.settings = at(settings, url)
        self._clients: list[Client] = []

    def client(self, kind: Kind = "sync", **settings: Any) -> Client:
        """Another client, closed at the end; `settings` differ from the usual ones."""
        of = self.settings.model_copy(update=settings)
        client: Client = Plain(of) if kind == "sync" else Driven(of)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


def at(settings: Settings, url: str, **others: Any) -> Settings:
    """Settings for an API on this machine."""
    named = {name: getattr(settings, name) for name in ("api_key", "redis_url", "handlers", "log_format")}
    return Settings(**named | {"api_url": url, "api_token": TOKEN, "api_plain_loopback": True} | others)


@contextmanager
def world(settings: Settings, **api: Any) -> Iterator[World]:
    """A simulator, and what is needed to make clients of it."""
    simulated = Api(TOKEN, **api)
    with serve(simulated) as served:
        made = World(simulated, served.url + "/v1", settings)
        try:
            yield made
        finally:
            made.close()
