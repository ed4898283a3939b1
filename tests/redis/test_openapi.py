"""The OpenAPI document: true to what the receiver does, and in one piece."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis import Redis

from app import __version__
from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.delivery.scheme import Scheme
from app.main import create_app, openapi
from app.receiver.endpoint import PATH
from app.receiver.refusals import REFUSALS
from tests.support.stack import Stack

Json = dict[str, Any]


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("openapi"), server.url) as stack:
        stack.start_receiver()
        yield stack


@pytest.fixture(scope="module")
def document() -> Json:
    return openapi(Scheme())


@pytest.fixture
def operation(document: Json) -> Json:
    operation: Json = document["paths"][PATH]["post"]
    return operation


def operations(document: Json) -> Iterator[Json]:
    for methods in document["paths"].values():
        yield from methods.values()


def walk(value: Any) -> Iterator[Json]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from walk(part)


def conforms(value: Any, schema: Json) -> bool:
    """By the few words that Jobhook's schemas use."""
    if schema["type"] == "object":
        return set(schema["required"]) <= value.keys() and all(
            conforms(value[name], part) for name, part in schema["properties"].items()
        )
    kind = {"string": str, "integer": int}[schema["type"]]
    return isinstance(value, kind) and value in schema.get("enum", [value])


def test_the_document_is_well_formed(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Jobhook"
    assert document["info"]["version"] == __version__
    assert set(document["paths"]) == {PATH, "/healthz", "/readyz", "/metrics"}
    ids = [operation["operationId"] for operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] for operation in operations(document))
    responses = [response for operation in operations(document) for response in operation["responses"].values()]
    assert all(response["description"] for response in responses)
    for reference in (part["$ref"] for part in walk(document) if "$ref" in part):
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]


def test_every_answer_of_the_webhook_is_described(operation: Json) -> None:
    assert set(operation["responses"]) == {"200", *(str(refusal.status) for refusal in REFUSALS)}
    assert operation["requestBody"]["required"] is True
    assert [parameter["name"] for parameter in operation["parameters"]] == ["X-Signature"]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.slug)
def test_every_refusal_has_an_example(refusal: Any, operation: Json) -> None:
    response = operation["responses"][str(refusal.status)]
    content = response["content"]["application/problem+json"]
    example = content["examples"][refusal.slug]["value"]
    assert example == refusal.problem()
    assert conforms(example, content["schema"])
    assert refusal.title in response["description"]


def test_a_503_asks_to_send_again(operation: Json) -> None:
    """P6."""
    assert operation["responses"]["503"]["headers"]["Retry-After"]["schema"]["type"] == "integer"


def test_the_answers_are_as_described(receiver: Stack, operation: Json) -> None:
    receiver.redis.flushall()
    refused = httpx.post(receiver.url, content=b"{}")
    described = operation["responses"]["401"]["content"][refused.headers["content-type"]]
    assert refused.json() == described["examples"]["unauthentic"]["value"]
    described = operation["responses"]["200"]["content"]["application/json"]
    for body in (
        b'{"id":"1","type":"a","data":{}}',
        b'{"id":"1","type":"a","data":{}}',
        b'{"id":"1","type":"a","data":{"b":1}}',
    ):
        accepted = receiver.deliver(body)
        assert accepted.headers["content-type"] == "application/json"
        assert conforms(accepted.json(), described["schema"])


def test_the_answer_to_a_try_is_as_described(receiver: Stack, document: Json) -> None:
    described = document["paths"][PATH]["get"]["responses"]["200"]["content"]["application/json"]
    assert conforms(httpx.get(receiver.url).json(), described["schema"])


def test_the_document_needs_neither_settings_nor_redis(document: Json, settings: Settings, redis: Redis) -> None:
    """And is that of the application that is served."""
    assert create_app(settings).openapi() == document


def test_the_webhook_has_one_route_and_one_entry(settings: Settings) -> None:
    app = create_app(settings)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            assert [getattr(route, "path", None) for route in app.routes].count(PATH) == 1
            assert app.openapi() == app.openapi()

    asyncio.run(live())
