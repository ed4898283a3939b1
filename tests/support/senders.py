"""A sender as JobsiteOn is one: what is not answered 200 is sent again, with the same bytes."""

import threading
from collections.abc import Callable
from typing import Self

import httpx
import orjson

from app.delivery.signature import sign
from tests.support import PATIENCE_SECONDS, wait_until
from tests.support.stack import KEY

PAUSE_SECONDS = 0.01
SOME = 30
ANSWER_SECONDS = 5.0


class Background:
    """Delivers in a thread of its own until the end of the block."""

    some = SOME
    """Deliveries that are waited for at the beginning, and whenever that is asked for."""
    patience = PATIENCE_SECONDS

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.ids: set[str] = set()
        """Of all that was accepted."""

    def wait_for_some(self) -> None:
        """Returns when some more deliveries have been accepted."""
        enough = len(self.ids) + self.some
        wait_until(lambda: len(self.ids) >= enough, "accepted deliveries", self.patience)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_some()
        return self

    def __exit__(self, *_: object) -> None:
        """Returns when the last delivery has been answered."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Persistent(Background):
    """Delivers one event after the other, each until it is accepted by one of the receivers."""

    def __init__(self, urls: Callable[[], list[str]], name: str = "evt", type: str = "test.ok") -> None:
        """`urls` says where the receivers are at the moment."""
        super().__init__()
        self._urls = urls
        self._name, self._type = name, type
        self.refused = 0
        """How often a delivery was sent again."""

    def _run(self) -> None:
        with httpx.Client(timeout=ANSWER_SECONDS, trust_env=False) as client:
            number = 0
            while not self._stop.wait(PAUSE_SECONDS):
                number += 1
                body = orjson.dumps(
                    {"id": f"{self._name}_{number}", "type": self._type, "data": {"id": f"res_{number}"}}
                )
                self._deliver(client, body, number)

    def _deliver(self, client: httpx.Client, body: bytes, number: int) -> None:
        for turn in range(1000):
            urls = self._urls()
            try:
                answer = client.post(
                    urls[(number + turn) % len(urls)],
                    content=body,
                    headers={"X-Signature": sign(KEY.encode(), body)},
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 200:
                self.ids.add(answer.json()["id"])
                return
            self.refused += 1
            self._stop.wait(PAUSE_SECONDS)
