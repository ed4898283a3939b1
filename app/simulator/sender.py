"""The sender of webhooks. What it assumes is in the package's docstring."""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

import httpx
import orjson

from app.delivery.scheme import Scheme
from app.delivery.signature import Signer

TIMEOUT_SECONDS = 5.0
FIRST_SENT = 1_772_528_400.0
"""Unix time at which the first try is sent."""
RETRY_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)


@dataclass
class Clock:
    """The sender's clock: days pass in no time."""

    now: float = FIRST_SENT

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Attempt:
    """A delivery, and what the sender made of it."""

    at: float
    """By the sender's clock."""
    status: int | None
    """None if there was no answer in time."""
    success: bool


@dataclass
class Sender:
    """Delivers to a URL as JobsiteOn may."""

    url: str
    keys: Sequence[bytes]
    """Which key signs the first try, the second, …; the last one all that follow: a rotation between retries."""
    clock: Clock = field(default_factory=Clock)
    retry_seconds: Sequence[float] = RETRY_SECONDS
    timeout: float = TIMEOUT_SECONDS
    copies: int = 1
    """Duplicates at once, in each try."""
    only_200: bool = False
    too_late: float | None = None
    """Seconds after which an answer, though received, counts as a failure."""
    scheme: Scheme = field(default_factory=Scheme)
    """How it signs. A signed timestamp is that of the machine, not of `clock`: the receiver has no other."""
    change: Callable[[bytes], bytes] = bytes
    """What becomes of the body from try to try: the same bytes; or it is `reserialised`, `rewritten` or `edited`."""

    def deliver(self, body: bytes) -> list[Attempt]:
        """Tries until there is a success, or no more retries."""
        attempts: list[Attempt] = []
        for number, pause in enumerate((0.0, *self.retry_seconds)):
            self.clock.sleep(pause)
            key = self.keys[min(number, len(self.keys) - 1)]
            attempts += self._post_copies(body, key)
            if any(attempt.success for attempt in attempts):
                break
            body = self.change(body)
        return attempts

    def redeliver(self, body: bytes, days: float) -> list[Attempt]:
        """Delivers again by hand, days later."""
        self.clock.sleep(days * 86400)
        return self._post_copies(self.change(body), self.keys[-1])

    def deliver_all(self, bodies: Iterable[bytes], shuffle: Random | None = None) -> list[list[Attempt]]:
        """Delivers several events, in another order if there is a `shuffle`."""
        order = list(bodies)
        if shuffle:
            shuffle.shuffle(order)
        return [self.deliver(body) for body in order]

    def _post_copies(self, body: bytes, key: bytes) -> list[Attempt]:
        with ThreadPoolExecutor(self.copies) as pool:
            return list(pool.map(lambda _: self._post(body, key), range(self.copies)))

    def _post(self, body: bytes, key: bytes) -> Attempt:
        url = httpx.URL(self.url)
        path, _, query = url.raw_path.partition(b"?")
        headers = {"content-type": "application/json", **Signer(key, self.scheme).headers(body, "POST", path, query)}
        begun = perf_counter()
        try:
            status = httpx.post(url, content=body, headers=headers, timeout=self.timeout).status_code
        except httpx.HTTPError:
            return Attempt(self.clock.now, None, success=False)
        in_time = self.too_late is None or perf_counter() - begun <= self.too_late
        good = status == 200 if self.only_200 else 200 <= status < 300
        return Attempt(self.clock.now, status, good and in_time)


def reserialised(body: bytes) -> bytes:
    """The same JSON in other bytes."""
    value = orjson.loads(body)
    plain = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return plain if plain != body else orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)


def rewritten(body: bytes) -> bytes:
    """The next try as many senders write it: with its number and its time, and in whatever form comes out."""
    value = orjson.loads(body)
    attempt = value.get("attempt", 1) + 1
    value |= {"attempt": attempt, "sent_at": FIRST_SENT + attempt * RETRY_SECONDS[0], "pending_webhooks": 1 % attempt}
    if attempt % 2:
        return orjson.dumps(dict(reversed(value.items())))
    return json.dumps(value, indent=attempt % 4 or None).encode()


def edited(body: bytes) -> bytes:
    """The same event id with other content."""
    value = orjson.loads(body)
    value["data"]["edited"] = value["data"].get("edited", 0) + 1
    return orjson.dumps(value)
