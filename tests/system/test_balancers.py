"""The load balancers of deploy/, run with the configurations that are there, over TLS, before two receivers."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.delivery.samples import sample
from app.receiver.endpoint import PATH
from tests.support import wait_until
from tests.support.balancers import KINDS, Balancer, balancing, why_not
from tests.support.processes import frozen
from tests.support.stack import MakeStack, Stack

SENDERS = 3
PAUSE_SECONDS = 0.02
"""Between an answer and the next delivery of a sender."""
SOME = 30
"""Deliveries that are sent before, in and after a fault."""

pytestmark = pytest.mark.parametrize("kind", KINDS)


class Setup(NamedTuple):
    """A load balancer, and what is behind it."""

    balancer: Balancer
    receivers: list[Stack]


@pytest.fixture
def setup(kind: str, server: EmbeddedServer, make_stack: MakeStack, tmp_path: Path) -> Iterator[Setup]:
    if reason := why_not(kind):
        pytest.skip(reason)
    receivers = [make_stack(server.url, JOBHOOK_REQUIRE_HTTPS="true") for _ in range(2)]
    for receiver in receivers:
        receiver.start_receiver()
    with balancing(kind, tmp_path, [receiver.port for receiver in receivers]) as balancer:
        yield Setup(balancer, receivers)


class Senders:
    """Deliver until they are stopped, a few at the same time."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        self.answers: list[int | str] = []
        """Status codes, and the names of errors."""
        self.ids: set[str] = set()

    def __enter__(self) -> "Senders":
        for thread in self._threads:
            thread.start()
        self.wait_for_some()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_some(self) -> None:
        """Returns when some more deliveries have been answered."""
        enough = len(self.answers) + SOME
        wait_until(lambda: len(self.answers) >= enough, "answers")

    def _send(self) -> None:
        with self._balancer.client() as client:
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    answer = self._balancer.deliver(client, sample("test.ok"))
                except httpx.HTTPError as error:
                    self.answers.append(type(error).__name__)
                else:
                    if answer.status_code == 200:
                        self.ids.add(answer.json()["id"])
                    self.answers.append(answer.status_code)


def restart_one_after_the_other(receivers: list[Stack], senders: Senders) -> None:
    for receiver in receivers:
        receiver.processes[-1].terminate()
        assert receiver.processes[-1].wait(20) == 0
        receiver.start_receiver()
    senders.wait_for_some()


def restart_one_and_kill_the_other(receivers: list[Stack], senders: Senders) -> None:
    """The one that has been away for a moment has to be back in line by then."""
    first, second = receivers
    first.processes[-1].terminate()
    assert first.processes[-1].wait(20) == 0
    first.start_receiver()
    second.processes[-1].kill()
    senders.wait_for_some()


def freeze_one(receivers: list[Stack], senders: Senders) -> None:
    with frozen(receivers[0].processes[-1].pid):
        senders.wait_for_some()


@pytest.mark.parametrize("fault", [restart_one_after_the_other, restart_one_and_kill_the_other, freeze_one])
def test_no_delivery_is_refused_while_a_receiver_is_away(
    kind: str, fault: Callable[[list[Stack], Senders], None], setup: Setup
) -> None:
    """P1, P6: each is answered 200 in JobsiteOn's time, by one receiver or the other, and recorded once."""
    with Senders(setup.balancer) as senders:
        fault(setup.receivers, senders)
        senders.wait_for_some()
    assert {answer: senders.answers.count(answer) for answer in set(senders.answers)} == {200: len(senders.answers)}
    assert len(senders.ids) == len(senders.answers)
    inbox = setup.receivers[0].inbox
    assert inbox.stats().states["queued"] == len(senders.ids)


def test_a_stranger_gets_no_further_by_what_he_claims(kind: str, setup: Setup) -> None:
    """P3: neither address nor protocol is his to say, and nothing but the webhook is there."""
    balancer, receivers = setup
    with balancer.client() as client:
        claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http", "Forwarded": "for=203.0.113.9"}
        accepted = balancer.deliver(client, sample("test.ok"), **claims)
        assert accepted.status_code == 200
        record = receivers[0].inbox.get(accepted.json()["id"])
        assert record.meta["client"] == "127.0.0.1"
        for path in ("/readyz", "/metrics", "/", PATH + "x"):
            assert balancer.post(client, path, b"").status_code == 404
        plain = client.post(f"http://127.0.0.1:{balancer.plain_port}{PATH}", headers={"Host": "hooks.example.com"})
        assert plain.status_code == 403


@pytest.mark.parametrize("size", [0, 100_000, 1_000_000])
def test_a_body_passes_unchanged(kind: str, size: int, setup: Setup) -> None:
    """P3: or no signature would fit."""
    balancer, receivers = setup
    body = b'{ "type" : "test.ok",\r\n"n": 1.0, "padding": "%b\xff" }' % (b"x" * size)
    with balancer.client() as client:
        accepted = balancer.deliver(client, body)
        assert accepted.status_code == 200
        assert receivers[0].inbox.get(accepted.json()["id"]).body == body
        assert balancer.post(client, PATH, b"x" * 1_090_000).status_code == 413
        with_slash = balancer.post(client, PATH + "/", b"{}")
        assert with_slash.status_code == 401
