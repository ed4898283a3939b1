"""The simulator does what it says: what is tested with it is worth no more than it."""

import asyncio
from collections.abc import Iterator
from random import Random
from time import monotonic
from typing import Any

import httpx
import orjson
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.samples import sample
from app.delivery.scheme import Scheme
from app.delivery.signature import Lookup, Verifier
from app.simulator import Api, Attempt, CannedAnswer, Clock, Permissions, Sender, bytes_server, serve
from app.simulator.sender import RETRY_SECONDS, edited, reserialised, rewritten
from tests.support.stack import KEY, MakeStack
from workers.jobsiteon.calls import RESOURCES

KEY_1, KEY_2 = b"key-of-the-sender-1", b"key-of-the-sender-2"


class Receiver:
    """Records deliveries; answers what the test wants, 200 at the end."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.delay = 0.0
        self.bodies: list[bytes] = []
        self.headers: list[dict[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.bodies.append(message["body"])
        self.headers.append(dict(scope["headers"]))
        status = self.answers.pop(0) if self.answers else 200
        await asyncio.sleep(self.delay)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def all(self, number: int) -> Lookup:
        """The headers of a delivery, as the verifier asks for them."""
        return lambda name: [self.headers[number][name]] if name in self.headers[number] else []


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(receiver: Receiver) -> Iterator[str]:
    with serve(receiver) as served:
        yield served.url


class TestSender:
    def test_signs_as_the_receiver_verifies(self, receiver: Receiver, url: str) -> None:
        (attempt,) = Sender(url, [KEY_1]).deliver(sample())
        assert attempt.success
        assert Verifier((KEY_1,)).verify(receiver.all(0), receiver.bodies[0]) == 0

    def test_signs_by_any_scheme(self, receiver: Receiver, url: str) -> None:
        scheme = Scheme(content="{timestamp}.{path}.{body}", form="t={timestamp},v1={signature}")
        Sender(url + "/hooks?from=us", [KEY_1], scheme=scheme).deliver(sample())
        verifier = Verifier((KEY_1,), scheme)
        assert verifier.verify(receiver.all(0), receiver.bodies[0], "POST", b"/hooks", b"from=us") == 0

    def test_retries_by_its_schedule(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [503, 500, 302]
        attempts = Sender(url, [KEY_1], clock=Clock(0.0)).deliver(sample())
        assert [(attempt.at, attempt.status) for attempt in attempts] == [(0, 503), (10, 500), (70, 302), (370, 200)]
        assert len(set(receiver.bodies)) == 1

    def test_gives_up(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [500] * 99
        attempts = Sender(url, [KEY_1]).deliver(sample())
        assert len(attempts) == 1 + len(RETRY_SECONDS)
        assert not any(attempt.success for attempt in attempts)

    def test_waits_for_its_timeout_only(self, receiver: Receiver, url: str) -> None:
        receiver.delay = 30
        begun = monotonic()
        (attempt,) = Sender(url, [KEY_1], timeout=0.1, retry_seconds=()).deliver(sample())
        assert attempt.status is None
        assert monotonic() - begun < 10

    def test_may_count_a_late_answer_as_none(self, receiver: Receiver, url: str) -> None:
        attempts = Sender(url, [KEY_1], too_late=0.0, retry_seconds=(1,)).deliver(sample())
        assert [(attempt.status, attempt.success) for attempt in attempts] == [(200, False)] * 2

    @pytest.mark.parametrize("only_200", [True, False])
    def test_may_want_exactly_200(self, receiver: Receiver, url: str, only_200: bool) -> None:
        receiver.answers = [202]
        assert len(Sender(url, [KEY_1], only_200=only_200).deliver(sample())) == 1 + only_200

    def test_may_send_duplicates_at_once(self, receiver: Receiver, url: str) -> None:
        attempts = Sender(url, [KEY_1], copies=8).deliver(sample())
        assert len(attempts) == len(receiver.bodies) == 8
        assert len(set(receiver.bodies)) == 1

    def test_may_change_the_order(self, receiver: Receiver, url: str) -> None:
        bodies = [sample() for _ in range(6)]
        Sender(url, [KEY_1]).deliver_all(bodies, shuffle=Random(1))  # noqa: S311 - no secret
        assert receiver.bodies != bodies
        assert sorted(receiver.bodies) == sorted(bodies)

    def test_may_change_the_bytes_but_not_the_content(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [500, 500]
        Sender(url, [KEY_1], change=reserialised).deliver(sample())
        assert len(set(receiver.bodies)) > 1
        assert len({orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS) for body in receiver.bodies}) == 1

    def test_may_write_each_try_anew(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [500] * 4
        Sender(url, [KEY_1], change=rewritten).deliver(sample())
        tries = [orjson.loads(body) for body in receiver.bodies]
        assert len(set(receiver.bodies)) == 5
        assert [tried.get("attempt") for tried in tries] == [None, 2, 3, 4, 5]
        assert len({orjson.dumps([tried["id"], tried["type"], tried["data"]]) for tried in tries}) == 1

    def test_may_change_the_content_but_not_the_id(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [500, 500]
        Sender(url, [KEY_1], change=edited).deliver(sample())
        assert len(set(receiver.bodies)) == 3
        assert len({orjson.loads(body)["id"] for body in receiver.bodies}) == 1

    def test_may_rotate_its_key_between_retries(self, receiver: Receiver, url: str) -> None:
        receiver.answers = [500, 500]
        Sender(url, [KEY_1, KEY_2]).deliver(sample())
        verifier = Verifier((KEY_1, KEY_2))
        signers = [verifier.verify(receiver.all(number), receiver.bodies[0]) for number in range(3)]
        assert signers == [0, 1, 1]

    def test_may_send_again_days_later(self, receiver: Receiver, url: str) -> None:
        sender, body = Sender(url, [KEY_1], clock=Clock(0.0)), sample()
        sender.deliver(body)
        assert sender.redeliver(body, days=3) == [Attempt(3 * 86400, 200, success=True)]
        assert receiver.bodies == [body, body]

    def test_jobhook_takes_it_all_once(self, server: EmbeddedServer, make_stack: MakeStack) -> None:
        """P4: duplicates at once, redeliveries days later in whatever form, a conflict."""
        stack = make_stack(server.url)
        stack.start_receiver()
        sender, body = Sender(stack.url, [KEY.encode()], copies=8), sample()
        assert all(attempt.success for attempt in sender.deliver(body) + sender.redeliver(body, days=20))
        for change in (reserialised, rewritten):
            sender.change = change
            assert all(attempt.success for attempt in sender.redeliver(body, days=1))
        assert stack.inbox.stats().states["queued"] == 1
        sender.change = edited
        sender.redeliver(body, days=1)
        assert stack.inbox.stats().states["queued"] == 2


class TestApi:
    @pytest.fixture
    def api(self) -> Api:
        return Api("a key", limit=5)

    @pytest.fixture
    def http(self, api: Api) -> Iterator[httpx.Client]:
        with serve(api) as served, httpx.Client(base_url=served.url + "/v1") as client:
            client.headers["authorization"] = "Bearer a key"
            yield client

    @pytest.mark.parametrize("resource", RESOURCES)
    def test_has_the_resources(self, http: httpx.Client, resource: str) -> None:
        first = http.get(f"/{resource}").json()["data"][0]
        assert http.get(f"/{resource}/{first['id']}").json() == first
        assert http.post(f"/{resource}", json={"id": "new"}).status_code == 201
        assert http.patch(f"/{resource}/new", json={}).status_code == (405 if resource == "payments" else 200)
        assert http.delete(f"/{resource}/new").status_code == 405

    def test_tells_keys_and_permissions_apart(self, http: httpx.Client, api: Api) -> None:
        api.keys["reader"] = Permissions("read", {"payments": "none"})
        reader = {"authorization": "Bearer reader"}
        assert http.get("/contacts", headers={"authorization": "Bearer unknown"}).status_code == 401
        assert http.get("/contacts", headers={"authorization": "reader"}).status_code == 401
        assert http.get("/contacts", headers=reader).status_code == 200
        assert http.post("/contacts", headers=reader, json={}).status_code == 403
        assert http.get("/payments", headers=reader).status_code == 403

    def test_refuses_what_is_not_there_or_not_valid(self, http: httpx.Client) -> None:
        assert http.get("/contacts/nobody").status_code == 404
        assert http.get("/nothing").status_code == 404
        assert http.post("/contacts", json=[]).status_code == 422
        assert http.post("/contacts", content=b"{").status_code == 422

    def test_counts_in_a_moving_window(self, http: httpx.Client, api: Api) -> None:
        answers = [http.get("/contacts") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert api.most_in_window(60) == 8
        assert api.most_in_window(60, status=200) == 5

    def test_can_be_asked_whether_something_changed(self, http: httpx.Client) -> None:
        etag = http.get("/contacts/con_1001").headers["etag"]
        assert http.get("/contacts/con_1001", headers={"if-none-match": etag}).status_code == 304
        http.patch("/contacts/con_1001", json={"notes": "new"})
        assert http.get("/contacts/con_1001", headers={"if-none-match": etag}).status_code == 200

    def test_breaks_on_demand(self, http: httpx.Client, api: Api) -> None:
        api.next_answers += [CannedAnswer(500, b"<html>"), CannedAnswer(body=b"{", cut=5), CannedAnswer(delay=9)]
        assert http.get("/contacts").text == "<html>"
        with pytest.raises(httpx.RemoteProtocolError):
            http.get("/contacts")
        with pytest.raises(httpx.ReadTimeout):
            http.get("/contacts", timeout=0.1)
        assert http.get("/contacts").status_code == 200

    def test_records_what_it_has_seen(self, http: httpx.Client, api: Api) -> None:
        http.post("/jobs?x=1", json={"a": 1}, headers={"idempotency-key": "once"})
        (seen,) = api.seen
        assert (seen.method, seen.path, seen.query, seen.key) == ("POST", "/v1/jobs", "x=1", "a key")
        assert (seen.idempotency_key, seen.body, seen.status) == ("once", b'{"a":1}', 201)


def test_bytes_are_served_as_they_are() -> None:
    with bytes_server() as server, httpx.Client() as client:
        server.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        assert client.get(server.url).content == b"{}"
        server.answer(b"no HTTP")
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(server.url)
