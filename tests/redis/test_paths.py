"""What is at which path, behind which guards: one endpoint in both spellings, no redirect, and nothing else to find."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.delivery.signature import sign
from app.main import create_app
from app.receiver.endpoint import PATH, PATHS
from tests.support.raw import BODY, Connection, request
from tests.support.stack import KEY, Stack, make_settings

PROXY = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7"}
PLAIN = PROXY | {"X-Forwarded-Proto": "http"}
ELSEWHERE = PROXY | {"X-Forwarded-For": "203.0.113.9"}
SIGNED = {"X-Signature": sign(KEY.encode(), BODY)}
READABLE = ("/", "/healthz", "/readyz", "/metrics")
NOWHERE = (
    f"{PATH}//",
    f"/{PATH}",
    "/webhooks//jobsiteon",
    f"{PATH}/x",
    f"{PATH};v=1",
    f"{PATH}%20",
    "/Webhooks/JobsiteOn",
    "/webhooks",
    "/healthz/",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
    "/favicon.ico",
    "/.env",
    "/%00",
)


@pytest.fixture(scope="module")
def receiver(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Strict as in production."""
    environment = {"JOBHOOK_REQUIRE_HTTPS": "true", "JOBHOOK_ALLOWED_IPS": "198.51.100.0/24"}
    with Stack(tmp_path_factory.mktemp("paths"), server.url, **environment) as stack:
        stack.start_receiver()
        yield stack


def ask(receiver: Stack, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    url = f"http://127.0.0.1:{receiver.port}"
    content = BODY if method == "POST" else b""
    with httpx.Client() as client:
        asked = client.build_request(method, url, content=content, headers=headers)
        asked.url = asked.url.copy_with(raw_path=path.encode())
        return client.send(asked)


def is_problem(answer: httpx.Response, status: int, slug: str) -> bool:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "location" not in answer.headers
    return bool(answer.json()["type"] == f"urn:jobhook:problem:{slug}")


@pytest.mark.parametrize("path", [PATH, f"{PATH}/", f"{PATH}?a=b", f"{PATH}/?a=b", "/webhooks/%6aobsiteon"])
def test_both_spellings_are_the_endpoint(receiver: Stack, path: str) -> None:
    """P8: a webhook registered with a slash at the end arrives as well."""
    assert ask(receiver, "POST", path, PROXY | SIGNED).json()["status"] in {"accepted", "duplicate"}
    assert is_problem(ask(receiver, "POST", path, PROXY), 401, "unauthentic")
    assert is_problem(ask(receiver, "POST", path, PLAIN | SIGNED), 403, "https-required")
    assert is_problem(ask(receiver, "PUT", path, PROXY), 405, "method-not-allowed")


@pytest.mark.parametrize("path", [PATH, f"{PATH}/"])
def test_who_tries_the_url_is_told_that_it_listens(receiver: Stack, path: str) -> None:
    """P3: after the guards. Many senders try a URL when it is registered."""
    answer = ask(receiver, "GET", path, PROXY)
    assert (answer.status_code, answer.json()) == (200, {"status": "listening"})
    without_body = ask(receiver, "HEAD", path, PROXY)
    assert (without_body.status_code, without_body.content) == (200, b"")
    assert without_body.headers["content-length"] == answer.headers["content-length"]
    assert is_problem(ask(receiver, "GET", path, PLAIN), 403, "https-required")
    assert is_problem(ask(receiver, "GET", path, ELSEWHERE), 403, "address-not-allowed")
    assert ask(receiver, "HEAD", path, ELSEWHERE).status_code == 403
    assert {"GET", "HEAD"} <= {line["method"] for line in receiver.log_lines("tried", at_least=2)}


def test_trying_it_records_nothing(receiver: Stack) -> None:
    receiver.redis.flushall()
    with Connection(receiver.port) as connection:
        forwarded = [f"{name}: {value}" for name, value in PROXY.items()]
        connection.send(request(*forwarded, method="GET"))
        assert connection.answer().status == 200
    assert receiver.redis.zcard("jobhook:open") == 0


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("path", NOWHERE)
def test_everything_else_is_nowhere(receiver: Stack, method: str, path: str) -> None:
    """P3: after the guards, so that strangers do not find out what there is."""
    assert is_problem(ask(receiver, method, path, PROXY | SIGNED), 404, "not-found")
    assert is_problem(ask(receiver, method, path, PLAIN | SIGNED), 403, "https-required")
    assert is_problem(ask(receiver, method, path, ELSEWHERE | SIGNED), 403, "address-not-allowed")


@pytest.mark.parametrize("path", READABLE)
def test_what_can_be_read_cannot_be_written(receiver: Stack, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = ask(receiver, method, path, {})
        assert is_problem(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "GET, HEAD"
    assert ask(receiver, "GET", path, {}).status_code == 200
    without_body = ask(receiver, "HEAD", path, {})
    assert (without_body.status_code, without_body.content) == (200, b"")


def test_at_the_root_is_a_line_that_says_what_this_is(receiver: Stack) -> None:
    answer = ask(receiver, "GET", "/", {})
    assert answer.text == "Jobhook receives JobsiteOn's webhooks.\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_no_answer_repeats_what_the_host_header_says(receiver: Stack) -> None:
    """P3: a redirect would, and lead a delivery to wherever a stranger wants it."""
    for target in (PATH, f"{PATH}/", f"{PATH}//", "/", "/healthz/", "*", "//evil.example/x"):
        with Connection(receiver.port) as connection:
            connection.send(request("Connection: close", host="Host: evil.example", target=target))
            assert b"evil" not in connection.rest()


def test_a_mounted_application_has_the_same_paths(settings: Settings, redis: Any) -> None:
    """Behind a prefix that is another application's, or a server's root path."""
    mounted = Starlette(routes=[Mount("/hooks", create_app(settings))])

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(mounted), base_url="https://test/hooks") as client:
            answers = [await client.post(path, content=BODY, headers=SIGNED) for path in sorted(PATHS)]
            return [answer.status_code for answer in [*answers, await client.post("/x", content=BODY)]]

    assert asyncio.run(statuses()) == [200, 200, 404]


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_a_flaw_of_ours_is_a_problem_too(server: EmbeddedServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: what the error says is neither answered nor logged."""
    lines: list[tuple[str, dict[str, str]]] = []

    def flawed(*_: object) -> None:
        raise ZeroDivisionError("the secret of the divisor")

    monkeypatch.setattr("app.ops.health.check", flawed)
    monkeypatch.setattr("app.ops.metrics.Metrics.scrape", flawed)
    app = create_app(make_settings(server.url))
    monkeypatch.setattr("app.main.log.critical", lambda event, **fields: lines.append((event, fields)))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get(path)

    answer = asyncio.run(ask())
    assert is_problem(answer, 500, "unexpected")
    assert "secret" not in answer.text
    (line,) = lines
    assert line[1]["error"] == "builtins.ZeroDivisionError"
    assert "secret" not in str(line)
