"""The API client against real HTTP: what it sends, what it takes for an answer, what it raises."""

import asyncio
import gzip
import logging
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from time import monotonic
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from redis import Redis
from structlog.testing import capture_logs

from app.cli.embedded import EmbeddedServer, free_port
from app.config.settings import Settings
from app.errors import ConfigError
from app.simulator import CannedAnswer, Permissions, bytes_server, serve
from tests.support.servers import endless_server
from tests.support.world import KINDS, TOKEN, Client, Driven, Kind, Plain, World, at, world
from workers import steps
from workers.jobsiteon import (
    ApiError,
    AsyncJobsiteOn,
    BadResponse,
    Forbidden,
    Invalid,
    JobsiteOn,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)
from workers.jobsiteon import errors as api_errors
from workers.jobsiteon.limits import fingerprint
from workers.retry import Permanent, RetryAfter
from workers.timelimit import HandlerTimeout, time_limit

HTML = b"<!doctype html><title>Maintenance</title>"


@pytest.fixture
def jobsiteon(redis: "Redis", settings: Settings) -> Iterator[World]:
    with world(settings) as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def client(jobsiteon: World, kind: Kind) -> Client:
    return jobsiteon.client(kind)


class TestCalls:
    def test_gets_an_object(self, client: Client, jobsiteon: World) -> None:
        assert client.get("/contacts/con_1001")["email"] == "dana@reyes-rentals.test"
        (seen,) = jobsiteon.api.seen
        assert (seen.method, seen.path, seen.key, seen.status) == ("GET", "/v1/contacts/con_1001", TOKEN, 200)

    def test_passes_parameters(self, client: Client, jobsiteon: World) -> None:
        client.items("/invoices", status="overdue", limit=3)
        assert jobsiteon.api.seen[0].query == "status=overdue&limit=3"

    def test_creates_and_updates(self, client: Client) -> None:
        made = client.create("/jobs", {"title": "Fix the tap"})
        assert client.update(f"/jobs/{made['id']}", {"status": "scheduled"})["title"] == "Fix the tap"

    def test_takes_an_object_out_of_an_envelope(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"data":{"id":"con_1"}}'))
        assert client.get("/contacts/con_1") == {"id": "con_1"}

    def test_a_write_may_be_answered_with_nothing(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(204, b""))
        assert client.update("/contacts/con_1001", {"notes": "x"}) == {}

    @pytest.mark.parametrize(
        "path",
        [
            *("contacts", "", "/", "//contacts", "/contacts/", "/contacts/..", "/contacts/../payments"),
            *(
                "/contacts/%2e%2e/x",
                "/contacts?q=1",
                "/contacts#x",
                "/quotes/1",
                "/Contacts",
                "https://x.test/contacts",
            ),
        ],
    )
    def test_what_is_not_offered_is_not_sent(self, client: Client, jobsiteon: World, path: str) -> None:
        with pytest.raises(Invalid):
            client.get(path)
        assert not jobsiteon.api.seen

    def test_payments_cannot_be_updated(self, client: Client, jobsiteon: World) -> None:
        with pytest.raises(Invalid, match="no PATCH"):
            client.update("/payments/pay_5001", {})
        assert not hasattr(JobsiteOn(jobsiteon.settings).payments, "update")
        assert not hasattr(AsyncJobsiteOn(jobsiteon.settings).payments, "update")

    def test_nothing_can_be_deleted(self) -> None:
        assert not hasattr(JobsiteOn, "delete")
        assert not hasattr(AsyncJobsiteOn, "delete")

    @pytest.mark.parametrize("id", [None, "", "..", True, 1.5])
    def test_an_id_that_is_none_is_refused(self, jobsiteon: World, id: Any) -> None:
        """As that of a payload that lacks it."""
        with pytest.raises(Invalid):
            JobsiteOn(jobsiteon.settings).contacts.get(id)

    def test_the_resources(self, jobsiteon: World) -> None:
        api = jobsiteon.api
        with JobsiteOn(jobsiteon.settings) as client:
            for resource in (client.contacts, client.jobs, client.invoices, client.pricebook, client.properties):
                first = next(iter(resource.list()))
                assert resource.get(first["id"]) == first
                assert resource.update(resource.create({"id": "a/b ?"})["id"], {"x": 1})["x"] == 1
            assert client.payments.create({"amount": "1.00"})["amount"] == "1.00"
            assert client.payments.get("pay_5001")["id"] == "pay_5001"
        assert "/v1/contacts/a/b ?" in {seen.path for seen in api.seen}  # one part of the path, as it arrives decoded

    async def _resources(self, settings: Settings) -> None:
        async with AsyncJobsiteOn(settings) as client:
            made = await client.contacts.create({"first_name": "Lee"})
            assert await client.contacts.update(made["id"], {"notes": "x"}) == await client.contacts.get(made["id"])
            assert made["id"] in [contact["id"] async for contact in client.contacts.list()]

    def test_the_resources_async(self, jobsiteon: World) -> None:
        asyncio.run(self._resources(jobsiteon.settings))

    def test_serves_one_event_loop_after_another(self, jobsiteon: World) -> None:
        """As after a handler's timeout, which costs its loop."""
        first, second = Driven(jobsiteon.settings), Driven(jobsiteon.settings)
        first.inner = second.inner
        for driven in (first, second, first):
            assert driven.get("/contacts/con_1001")
        first.close()
        second.close()


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            *((401, Unauthorized), (403, Forbidden), (404, NotFound), (410, NotFound)),
            *((400, Invalid), (405, Invalid), (409, Invalid), (422, Invalid)),
            *((408, Unreachable), (425, Unreachable), (304, BadResponse), (300, BadResponse)),
            *((500, ServerError), (503, ServerError), (599, ServerError)),
        ],
    )
    def test_each_status_has_its_error(self, jobsiteon: World, kind: Kind, status: int, error: type[ApiError]) -> None:
        """The status first: whatever the body is."""
        jobsiteon.api.next_answers.append(CannedAnswer(status, HTML, {"content-type": "text/html"}))
        without_retries = jobsiteon.client(kind, api_timeout=1.0)
        with pytest.raises(error, match=str(status)) as raised:
            without_retries.get("/contacts/con_1001")
        assert type(raised.value) is error
        assert raised.value.status == status

    @pytest.mark.parametrize("error", [Unauthorized, Forbidden, NotFound, Invalid])
    def test_those_that_are_permanent(self, error: type[ApiError]) -> None:
        assert issubclass(error, Permanent)

    @pytest.mark.parametrize("error", [ServerError, Unreachable, BadResponse])
    def test_those_that_the_schedule_tries_again(self, error: type[ApiError]) -> None:
        assert not issubclass(error, Permanent | RetryAfter)

    def test_the_key_decides(self, jobsiteon: World, kind: Kind) -> None:
        jobsiteon.api.keys = {
            "reads-only-0123456789": Permissions("read"),
            "contacts-0123456789": Permissions("none", {"contacts": "write"}),
        }
        with pytest.raises(Unauthorized):
            jobsiteon.client(kind).get("/contacts/con_1001")
        reader = jobsiteon.client(kind, api_token=SecretStr("reads-only-0123456789"))
        assert reader.get("/invoices/inv_4001")
        with pytest.raises(Forbidden):
            reader.update("/invoices/inv_4001", {})
        with pytest.raises(Forbidden):
            jobsiteon.client(kind, api_token=SecretStr("contacts-0123456789")).get("/jobs/job_3001")

    def test_without_a_token_the_signing_key_is_used(self, jobsiteon: World) -> None:
        jobsiteon.api.keys = {jobsiteon.settings.api_key.get_secret_value(): Permissions()}
        assert jobsiteon.client(api_token=None).get("/contacts/con_1001")

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("7", 7), ("0", 0), ("999999999999", 3600), (None, 10), ("soon", 10), ("-1", 10), ("1.5", 10)],
    )
    def test_a_429_waits_as_asked(self, client: Client, jobsiteon: World, value: str | None, seconds: float) -> None:
        headers = {} if value is None else {"retry-after": value}
        jobsiteon.api.next_answers += [CannedAnswer(429, b"", headers)] * 4
        with pytest.raises(RateLimited) as raised:
            client.get("/contacts/con_1001")
        assert isinstance(raised.value, RetryAfter)
        assert raised.value.seconds == seconds
        assert not raised.value.counts

    def test_a_429_may_name_a_date(self, client: Client, jobsiteon: World) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
        jobsiteon.api.next_answers.append(CannedAnswer(429, b"", {"retry-after": date}))
        with pytest.raises(RateLimited) as raised:
            client.get("/contacts/con_1001")
        assert 110 < raised.value.seconds <= 121  # dates are of whole seconds

    @pytest.mark.parametrize("wrong", [timedelta(days=-2), timedelta(hours=2)])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_date_is_one_by_the_clock_of_the_server(
        self, redis: "Redis", settings: Settings, kind: Kind, wrong: timedelta
    ) -> None:
        theirs = datetime.now(UTC) + wrong
        date, until = (format_datetime(moment, usegmt=True) for moment in (theirs, theirs + timedelta(seconds=120)))
        answer = f"HTTP/1.1 429 X\r\nDate: {date}\r\nRetry-After: {until}\r\nContent-Length: 0\r\n\r\n"
        with bytes_server() as server:
            server.answer(answer.encode())
            of = at(settings, server.url)
            client: Client = Plain(of) if kind == "sync" else Driven(of)
            with pytest.raises(RateLimited) as raised:
                client.get("/contacts/con_1001")
            client.close()
        assert raised.value.seconds == 120
        assert 100_000 < redis.pttl("jobhook:api:pause:" + fingerprint(TOKEN.encode())) <= 120_000

    def test_nobody_there(self, jobsiteon: World, kind: Kind) -> None:
        away = jobsiteon.client(kind, api_url=f"http://127.0.0.1:{free_port()}", api_timeout=1.0)
        with pytest.raises(Unreachable) as raised:
            away.get("/contacts/con_1001")
        assert not raised.value.sent

    @pytest.mark.parametrize("answer", [CannedAnswer(delay=30), CannedAnswer(body=b"{" + b" " * 500, drip=0.05)])
    def test_too_slow(self, jobsiteon: World, kind: Kind, answer: CannedAnswer) -> None:
        """Whether the answer does not begin or does not end: the whole call has its deadline."""
        jobsiteon.api.next_answers.append(answer)
        slow = jobsiteon.client(kind, api_timeout=0.4)
        begun = datetime.now(UTC)
        with pytest.raises(Unreachable):
            slow.get("/contacts/con_1001")
        assert datetime.now(UTC) - begun < timedelta(seconds=5)


class TestGarbage:
    @pytest.mark.parametrize(
        "answer",
        [
            CannedAnswer(body=HTML, headers={"content-type": "text/html"}),
            CannedAnswer(body=b""),
            CannedAnswer(body=b'{"id": "con_1", '),
            CannedAnswer(body=b"null"),
            CannedAnswer(body=b"[]"),
            CannedAnswer(body=b'"text"'),
            CannedAnswer(body=b'{"id": NaN}'),
            CannedAnswer(body=b'{"id": "\xff"}'),
            CannedAnswer(body=b"[" * 5000),
            CannedAnswer(body=b"junk", headers={"content-encoding": "gzip"}),
            CannedAnswer(body=b" " * (16 * 1024**2 + 1)),
        ],
        ids=lambda answer: repr(answer.body[:20]),
    )
    def test_a_200_that_is_no_object(self, client: Client, jobsiteon: World, answer: CannedAnswer) -> None:
        jobsiteon.api.cache_control = "max-age=60"
        jobsiteon.api.next_answers.append(answer)
        with pytest.raises(BadResponse):
            client.get("/contacts/con_1001")
        assert client.get("/contacts/con_1001")["id"] == "con_1001"

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_endless_answer_is_not_read_to_its_end(
        self, redis: "Redis", settings: Settings, kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limit = 256 * 1024
        monkeypatch.setattr("workers.jobsiteon.exchange.MOST_BYTES", limit)
        with endless_server(most=64 * 1024**2) as server:
            of = at(settings, server.url)
            client: Client = Plain(of) if kind == "sync" else Driven(of)
            with pytest.raises(BadResponse, match="too large"):
                client.get("/contacts/con_1")
            client.close()
            assert server.sent < 32 * 1024**2  # what it read, and what the kernel had buffered

    def test_what_could_be_kept_but_is_no_answer_is_not_kept(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=HTML, headers={"cache-control": "max-age=60"}))
        with pytest.raises(BadResponse):
            client.get("/contacts/con_1001")
        assert client.get("/contacts/con_1001")["id"] == "con_1001"

    def test_half_a_body(self, jobsiteon: World, kind: Kind) -> None:
        """Valid JSON so far, but shorter than announced."""
        jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"id":"half"}', cut=20))
        impatient = jobsiteon.client(kind, api_timeout=1.0)
        with pytest.raises(Unreachable):
            impatient.get("/contacts/con_1001")

    @pytest.mark.parametrize("kind", KINDS)
    def test_whatever_comes_it_is_an_api_error_or_an_object(
        self, redis: "Redis", settings: Settings, kind: Kind
    ) -> None:
        with bytes_server() as server:
            of = at(settings, server.url, api_timeout=1.0, api_rate_limit=100_000)
            client = Plain(of) if kind == "sync" else Driven(of)

            @hypothesis.settings(max_examples=150)
            @hypothesis.given(raw=_answers())
            def receive(raw: bytes) -> None:
                redis.flushall()  # neither its cache nor a pause is to carry over
                server.answer(raw)
                try:
                    assert isinstance(client.get("/contacts/con_1001"), dict)
                    assert isinstance(client.items("/contacts"), list)
                except ApiError as error:
                    assert type(error).__module__ == api_errors.__name__  # noqa: PT017 - either is fine

            receive()
            client.close()


def _answers() -> st.SearchStrategy[bytes]:
    """From noise to what is nearly HTTP."""
    text = st.binary(max_size=30)
    name = st.sampled_from(
        b"Content-Length Content-Type Content-Encoding Transfer-Encoding Retry-After Location Link Connection "
        b"Cache-Control ETag Vary Age Date Expires Last-Modified Set-Cookie".split()
    )
    value = text | st.sampled_from(
        [
            *(
                b"max-age=60",
                b"max-age=" + b"9" * 400,
                b"max-age=",
                b"private=,",
                b"-1",
                b"0",
                b"*",
                b"Thu, 99 Foo 2026",
            ),
            *(
                b"gzip",
                b"gzip, gzip",
                "é=é".encode(),
                b"br",
                b"chunked",
                b"//",
                b"http://[",
                b"/v1/contacts",
                b"ftp://x",
                b'<x>;rel="next',
            ),
        ]
    )
    status = st.sampled_from([b"200", b"204", b"301", b"302", b"304", b"429", b"500", b"99", b"1000", b"abc"]) | text
    headers = st.lists(st.tuples(name | text, value), max_size=5)
    body = text | st.sampled_from([b"{}", b"5\r\n{}", b"2\r\n{}\r\n0\r\n\r\n", HTML, b"[" * 100])
    http = st.builds(
        lambda status, headers, body: b"\r\n".join(
            [b"HTTP/1.1 " + status + b" X", *(name + b": " + value for name, value in headers), b"", body]
        ),
        *(status, headers, body),
    )
    return http | st.binary(max_size=200)


class TestHttpsOnly:
    def test_plain_http_on_this_machine_has_to_be_asked_for(self) -> None:
        """Documented: HTTP is rejected. A simulator is the one exception."""
        with pytest.raises(ValidationError, match="https"):
            Settings(api_key=TOKEN, api_url="http://127.0.0.1:8080/v1")
        assert Settings(api_key=TOKEN, api_url="http://127.0.0.1:8080/v1", api_plain_loopback=True)

    @pytest.mark.parametrize("url", ["http://api.jobsiteon.com/v1", "http://127.0.0.1:1/v1", "ftp://x", "api.test", ""])
    def test_other_addresses_are_refused(self, settings: Settings, url: str) -> None:
        with pytest.raises(ValidationError, match="https://"):
            Settings(api_key=settings.api_key, api_url=url)

    @pytest.mark.parametrize("url", ["http://127.0.0.1.evil.test", "http://localhost.test", "http://10.0.0.1"])
    def test_plain_http_is_for_this_machine_only(self, settings: Settings, url: str) -> None:
        with pytest.raises(ValidationError, match="https://"):
            Settings(api_key=settings.api_key, api_url=url, api_plain_loopback=True)

    @pytest.mark.parametrize("url", ["https://user:pw@api.test/v1", "https://api.test/v1?key=1", "https://api.test/#x"])
    def test_a_url_is_only_a_url(self, settings: Settings, url: str) -> None:
        with pytest.raises(ValidationError, match="without a query"):
            Settings(api_key=settings.api_key, api_url=url)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_elsewhere_is_not_followed(self, client: Client, jobsiteon: World, status: int) -> None:
        """P7: the key goes to no other port, host or scheme."""
        elsewhere: list[str] = []

        async def app(scope: Any, *_: Any) -> None:
            elsewhere.append(scope["path"])

        with serve(app) as other:
            jobsiteon.api.next_answers.append(
                CannedAnswer(status, b"", {"location": f"{other.url}/v1/contacts/con_1001"})
            )
            with pytest.raises(BadResponse, match="not followed"):
                client.get("/contacts/con_1001")
        assert not elsewhere

    def test_a_redirect_within_is_followed_for_a_get(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(302, b"", {"location": "/v1/contacts/con_1002"}))
        assert client.get("/contacts/con_1001")["id"] == "con_1002"

    def test_a_redirect_of_a_write_is_not_followed(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(307, b"", {"location": "/v1/contacts"}))
        with pytest.raises(BadResponse):
            client.create("/contacts", {})
        assert len(jobsiteon.api.seen) == 1

    def test_a_redirect_in_circles(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(302, b"", {"location": "/v1/contacts/con_1001"})] * 9
        with pytest.raises(BadResponse):
            client.get("/contacts/con_1001")

    def test_a_next_page_elsewhere_is_not_fetched(self, client: Client, jobsiteon: World) -> None:
        """P7."""
        body = b'{"data":[{"id":1}],"next":"https://elsewhere.test/v1/contacts?page=2"}'
        jobsiteon.api.next_answers.append(CannedAnswer(body=body))
        with pytest.raises(BadResponse, match="not followed"):
            client.items("/contacts")

    def test_a_key_that_no_header_can_carry(self, settings: Settings) -> None:
        with pytest.raises(ConfigError, match="JOBSITEON_API_TOKEN") as raised:
            JobsiteOn(settings.model_copy(update={"api_token": SecretStr("canary\r\nX-Evil: 1")}))
        assert "canary" not in str(raised.value)


class TestRetries:
    @pytest.mark.parametrize(
        "answer",
        [
            CannedAnswer(500),
            CannedAnswer(503, b"", {"retry-after": "1"}),
            CannedAnswer(body=b"{", cut=9),
            CannedAnswer(408),
        ],
    )
    def test_a_get_is_tried_again(self, client: Client, jobsiteon: World, answer: CannedAnswer) -> None:
        jobsiteon.api.next_answers += [answer]
        assert client.get("/contacts/con_1001")["id"] == "con_1001"
        assert len(jobsiteon.api.seen) == 2

    def test_a_get_is_tried_four_times(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(500)] * 9
        with pytest.raises(ServerError):
            client.get("/contacts/con_1001")
        assert len(jobsiteon.api.seen) == 4

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    def test_what_is_permanent_is_tried_once(self, client: Client, jobsiteon: World, status: int) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(status)] * 4
        with pytest.raises(ApiError):
            client.get("/contacts/con_1001")
        assert len(jobsiteon.api.seen) == 1

    def test_a_503_that_asks_for_long_is_not_tried_again(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(503, b"", {"retry-after": "60"})] * 4
        with pytest.raises(ServerError):
            client.get("/contacts/con_1001")
        assert len(jobsiteon.api.seen) == 1

    def test_there_is_no_try_without_time_for_it(self, jobsiteon: World, kind: Kind) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(500)] * 4
        with pytest.raises(ServerError):
            jobsiteon.client(kind, api_timeout=1.0).get("/contacts/con_1001")
        assert len(jobsiteon.api.seen) == 1

    @pytest.mark.parametrize(
        "answer", [CannedAnswer(500), CannedAnswer(502), CannedAnswer(body=b"{", cut=9), CannedAnswer(408)]
    )
    def test_a_write_that_may_have_been_carried_out_is_not_repeated(
        self, client: Client, jobsiteon: World, answer: CannedAnswer
    ) -> None:
        """P5: JobsiteOn does not document that it knows an Idempotency-Key."""
        jobsiteon.api.next_answers += [answer]
        with pytest.raises(ApiError):
            client.create("/payments", {"amount": "1.00"})
        assert len(jobsiteon.api.seen) == 1

    def test_a_write_that_was_refused_for_its_rate_is_repeated(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(429, b"", {"retry-after": "1"})]
        assert client.create("/payments", {"amount": "1.00"})["amount"] == "1.00"
        assert len({seen.idempotency_key for seen in jobsiteon.api.seen}) == 1
        assert jobsiteon.api.statuses() == [429, 201]

    def test_a_write_that_found_no_connection_is_repeated(self, jobsiteon: World, kind: Kind) -> None:
        away = jobsiteon.client(kind, api_url=f"http://127.0.0.1:{free_port()}", api_timeout=4.0)
        with capture_logs() as lines, pytest.raises(Unreachable):
            away.create("/payments", {})
        assert sum(line["event"] == "api request" for line in lines) >= 2


class TestCookies:
    def test_none_is_sent_back(self, client: Client, jobsiteon: World) -> None:
        """One answer must not change the requests of all handlers after it."""
        cookies = ["a=1", "a=1; Path=/; Max-Age=99999", "name=é", *(f"n{number}={'x' * 200}" for number in range(40))]
        for cookie in cookies:
            jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"id":"1"}', headers={"set-cookie": cookie}))
            client.get("/contacts/con_1001")
        client.get("/contacts/con_1001")
        assert {seen.cookie for seen in jobsiteon.api.seen} == {None}


class TestCodings:
    @pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "identity, gzip"])
    def test_gzip_is_read(self, client: Client, jobsiteon: World, coding: str) -> None:
        body = gzip.compress(b'{"id":') + gzip.compress(b'"1"}')
        jobsiteon.api.next_answers.append(CannedAnswer(body=body, headers={"content-encoding": coding}))
        assert client.get("/contacts/con_1001") == {"id": "1"}

    def test_gzip_is_all_that_is_asked_for(self, client: Client, jobsiteon: World) -> None:
        client.get("/contacts/con_1001")
        assert jobsiteon.api.seen[0].accept_encoding == "gzip"

    @pytest.mark.parametrize("coding", ["gzip, gzip", "gzip,gzip,gzip", "br", "deflate", "compress", "gzip, br"])
    def test_others_and_several_are_not_decoded(self, client: Client, jobsiteon: World, coding: str) -> None:
        body = gzip.compress(gzip.compress(b'{"id":"1"}'))
        jobsiteon.api.next_answers.append(CannedAnswer(body=body, headers={"content-encoding": coding}))
        with pytest.raises(BadResponse, match="coding"):
            client.get("/contacts/con_1001")

    @pytest.mark.parametrize(
        "body",
        [gzip.compress(b'{"id":"1"}')[:-9], b"{}", gzip.compress(b"{}") + b"{}"],
        ids=["cut", "none", "followed"],
    )
    def test_what_is_not_whole_gzip(self, client: Client, jobsiteon: World, body: bytes) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=body, headers={"content-encoding": "gzip"}))
        with pytest.raises(BadResponse):
            client.get("/contacts/con_1001")

    def test_the_limit_of_size_holds_for_what_is_decoded(self, jobsiteon: World, kind: Kind) -> None:
        """64 KiB on the wire are 64 MiB of blanks, of which no more than the limit is ever decoded."""
        body = gzip.compress(b" " * 64 * 1024**2)
        jobsiteon.api.next_answers.append(CannedAnswer(body=body, headers={"content-encoding": "gzip"}))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(BadResponse, match="too large"):
            jobsiteon.client(kind).get("/contacts/con_1001")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024

    @pytest.mark.parametrize("status", [404, 503])
    def test_an_error_counts_by_its_status_whatever_its_coding(
        self, jobsiteon: World, client: Client, status: int
    ) -> None:
        jobsiteon.api.next_answers += [CannedAnswer(status, b"x", {"content-encoding": "br"})] * 4
        with pytest.raises(NotFound if status == 404 else ServerError):
            client.get("/contacts/con_1001")


class TestOddValues:
    """Nothing but an ApiError leaves the client, whatever is sent or received."""

    def test_what_cannot_be_sent(self, client: Client, jobsiteon: World) -> None:
        calls: list[Callable[[], object]] = [
            lambda: client.create("/jobs", {}, idempotency_key="é"),
            lambda: client.create("/jobs", {}, idempotency_key="\ud800"),
            lambda: client.create("/jobs", {"x": "\ud800"}),
            lambda: client.create("/jobs", {"x": object()}),
            lambda: client.create("/jobs", {"x": 2**80, "y": float("nan")}),
            lambda: client.get("/jobs/1", q="\ud800"),
            lambda: client.get("/jobs/\ud800"),
            lambda: client.items("/jobs", q="\ud800"),
        ]
        for call in calls:
            with pytest.raises(Invalid):
                call()
        assert not jobsiteon.api.seen

    def test_a_byte_order_mark_is_read_over(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=b'\xef\xbb\xbf{"id":"1"}'))
        assert client.get("/contacts/con_1001") == {"id": "1"}

    def test_integers_of_any_size_stay_exact(self, client: Client, jobsiteon: World) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=b'{"id":36893488147419103233}'))
        assert client.get("/contacts/con_1001") == {"id": 2**65 + 1}
        jobsiteon.api.next_answers.append(CannedAnswer(body=b"{}"))
        client.update("/contacts/con_1001", {"id": 2**65 + 1})
        assert jobsiteon.api.seen[-1].body == b'{"id":36893488147419103233}'

    @pytest.mark.parametrize("body", [b'{"x":NaN}', b'{"x":' + b"9" * 5000 + b"}", b"[" * 100_000])
    def test_json_that_is_none_or_too_much(self, client: Client, jobsiteon: World, body: bytes) -> None:
        jobsiteon.api.next_answers.append(CannedAnswer(body=body))
        with pytest.raises(BadResponse):
            client.get("/contacts/con_1001")


class TestHandlerTimeout:
    def test_it_leaves_no_connection_in_use(self, jobsiteon: World) -> None:
        """It may strike inside the pool: a connection that it has cut is neither kept for ever nor used again."""
        client = Plain(jobsiteon.settings)
        jobsiteon.api.next_answers.append(CannedAnswer(delay=1.0))
        jobsiteon.api.before_answer = lambda: os.kill(os.getpid(), signal.SIGALRM)
        with pytest.raises(HandlerTimeout), time_limit(30):
            client.get("/contacts/con_1001")
        jobsiteon.api.before_answer = None
        assert "_http" not in vars(client)
        assert client.get("/contacts/con_1001")["id"] == "con_1001"
        client.close()


class TestRedisAway:
    def test_what_was_answered_is_given_though_redis_hangs(
        self, own_server: EmbeddedServer, jobsiteon: World, kind: Kind
    ) -> None:
        """Redis stops while the request is under way: the answer is complete, and counts."""
        client = jobsiteon.client(kind, redis_url=own_server.url, api_timeout=10.0)
        jobsiteon.api.cache_control = "max-age=60"
        jobsiteon.api.before_answer = lambda: os.kill(own_server.pid, signal.SIGSTOP)
        try:
            begun = monotonic()
            assert client.create("/payments", {"amount": "1.00"})["amount"] == "1.00"
            assert monotonic() - begun < 10
        finally:
            jobsiteon.api.before_answer = None
            os.kill(own_server.pid, signal.SIGCONT)

    def test_what_could_not_be_made_stale_is_before_the_next_reading(
        self, own_server: EmbeddedServer, jobsiteon: World, kind: Kind
    ) -> None:
        client = jobsiteon.client(kind, redis_url=own_server.url)
        jobsiteon.api.cache_control = "max-age=60"
        client.get("/contacts/con_1001")
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            with capture_logs() as lines:
                client.invalidate("contact")
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert [line["event"] for line in lines] == ["api cache not invalidated"]
        client.get("/contacts/con_1001")
        assert len(jobsiteon.api.seen) == 2


class TestIdempotencyKeys:
    def run(self, client: Client, event: str) -> None:
        with steps.running(steps.Step(event, "handler x")):
            client.create("/payments", {"amount": "1.00"})
            client.create("/payments", {"amount": "1.00"})
            client.update("/invoices/inv_4001", {"notes": "paid"})

    def test_a_step_that_is_run_again_sends_the_same_keys(self, client: Client, jobsiteon: World) -> None:
        """P5: each write has its own, whatever becomes of the step."""
        self.run(client, "event 1")
        self.run(client, "event 1")
        keys = [seen.idempotency_key for seen in jobsiteon.api.seen]
        assert keys[:3] == keys[3:]
        assert None not in keys
        assert len(set(keys)) == 3

    def test_another_event_sends_others(self, client: Client, jobsiteon: World) -> None:
        self.run(client, "event 1")
        self.run(client, "event 2")
        assert len({seen.idempotency_key for seen in jobsiteon.api.seen}) == 6

    def test_one_may_be_given(self, client: Client, jobsiteon: World) -> None:
        client.create("/payments", {}, idempotency_key="mine")
        client.create("/payments", {})
        assert [seen.idempotency_key for seen in jobsiteon.api.seen] == ["mine", None]

    def test_one_that_cannot_be_sent(self, client: Client, jobsiteon: World) -> None:
        with pytest.raises(Invalid):
            client.create("/payments", {}, idempotency_key="two\r\nlines")
        assert not jobsiteon.api.seen

    def test_a_run_that_skips_a_write_gives_its_key_to_no_other(self, client: Client, jobsiteon: World) -> None:
        """P5: a server that honours keys would answer the second write with the first one's result."""
        for writes in (["1.00", "2.00"], ["2.00"]):
            with steps.running(steps.Step("event", "handler x")):
                for amount in writes:
                    client.create("/payments", {"amount": amount, "method": "check"})
        first, second, again = [seen.idempotency_key for seen in jobsiteon.api.seen]
        assert first != second == again

    def test_the_order_of_fields_makes_no_other_key(self, client: Client, jobsiteon: World) -> None:
        for data in ({"a": 1, "b": 2}, {"b": 2, "a": 1}):
            with steps.running(steps.Step("event", "handler x")):
                client.create("/payments", data)
        assert len({seen.idempotency_key for seen in jobsiteon.api.seen}) == 1


class TestSecrets:
    def test_nothing_that_comes_out_holds_a_secret(
        self, client: Client, jobsiteon: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        """P7: neither the key nor what is asked or answered, in logs, errors and reprs."""
        caplog.set_level(logging.DEBUG)
        for name in ("httpx", "httpcore"):
            caplog.set_level(logging.WARNING, name)  # as app.ops.logs has it
        body, canary = b'{"id":"canary-answer",', "canary-id"
        answers = [CannedAnswer(status, body, {"x": "canary-header"}) for status in (200, 300, 401, 404, 422, 500)]
        answers += [
            CannedAnswer(429, body, {"retry-after": "0"}),
            CannedAnswer(302, b"", {"location": "http://canary.test/"}),
        ]
        out: list[str] = []
        with capture_logs() as lines:
            for answer in answers:
                jobsiteon.api.next_answers += [answer] * 4
                for call in (
                    partial(client.get, f"/contacts/{canary}", email="canary-query"),
                    partial(client.update, f"/contacts/{canary}", {"email": "canary-data"}),
                ):
                    try:
                        call()
                    except ApiError as error:
                        out += [str(error), repr(error), "".join(traceback.format_exception(error))]
                jobsiteon.api.next_answers.clear()
        out += [repr(client), str(vars(client)), caplog.text, *map(str, lines)]
        assert len(out) > 40
        everything = "\n".join(out)
        assert TOKEN not in everything
        assert "canary" not in "".join(line for line in everything.splitlines() if '"canary' not in line)

    def test_a_line_a_request(self, client: Client, jobsiteon: World) -> None:
        with capture_logs() as lines:
            client.get("/contacts/con_1001", expand="jobs")
        (line,) = lines
        assert line.pop("ms") >= 0
        assert line == {
            "event": "api request",
            "log_level": "debug",
            "method": "GET",
            "path": "/contacts/…",
            "status": 200,
            "cached": False,
        }

    def test_what_is_kept_in_redis_does_not_hold_the_key(
        self, client: Client, jobsiteon: World, redis: "Redis"
    ) -> None:
        """P7."""
        jobsiteon.api.cache_control = "max-age=60"
        client.get("/contacts/con_1001")
        keys: Any = redis.keys("jobhook:api:*")
        assert len(keys) >= 2
        assert not any(TOKEN.encode() in key or TOKEN.encode() in (redis.dump(key) or b"") for key in keys)

    def test_a_wrong_token_is_told_without_its_value(self, settings: Settings) -> None:
        with pytest.raises(ValidationError) as raised:
            Settings(api_key=settings.api_key, api_token="canary")
        assert "canary" not in str(raised.value)


def test_the_package_can_be_imported_alone() -> None:
    command = [sys.executable, "-W", "error", "-c", "import workers.jobsiteon"]
    subprocess.run(command, check=True, env={"PATH": os.environ["PATH"]})
