"""Deliveries that fail the signature: which are kept, how long, and what they may cost."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.errors import SignatureFault
from app.inbox.inbox import connect
from app.inbox.rejected import KEY, Rejected, RejectedDeliveries, pack_head, reject_arguments
from app.inbox.scripts import REJECT
from app.main import create_app
from app.receiver.endpoint import PATH
from app.receiver.rejections import BURST, MOST_PEERS, MOST_WAITING, PEER_BURST, Rejections
from tests.support import wait_until
from tests.support.stack import make_settings

HEAD = pack_head("POST", b"/webhooks/jobsiteon", b"", [(b"x-signature", b"0" * 40)])


def keep(redis: Redis, settings: Settings, body: bytes = b"{}", head: bytes = HEAD) -> str:
    arguments: Any = reject_arguments(settings, time.time(), "192.0.2.1", "no key fits", head, body)
    outcome: Any = redis.eval(REJECT.text, 0, *arguments)
    return str(outcome.decode())


def kept(redis: Redis) -> list[Rejected]:
    return list(RejectedDeliveries(redis).oldest())


def held_bytes(redis: Redis) -> int:
    """By the sizes that the entries say."""
    entries: Any = redis.xrange(KEY)
    return sum(int(fields[b"size"]) for _, fields in entries)


def note_all(settings: Settings, *noted: tuple[str, bytes], dropped: Counter[str] | None = None) -> None:
    """Hands so many refused deliveries, of a peer and with a body, to a receiver's recorder, and closes it."""
    counts = Counter[str]() if dropped is None else dropped
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/webhooks/jobsiteon",
        "query_string": b"a=1",
        "headers": [(b"x-signature", b"0" * 64)],
    }

    async def session() -> None:
        rejections = Rejections(settings, lambda reason: counts.update([reason]))
        for peer, body in noted:
            rejections.note(scope, body, peer, "no key fits")
        await rejections.close()

    asyncio.run(session())


def test_what_was_refused_is_kept_as_it_came(redis: Redis, settings: Settings) -> None:
    before = time.time()
    note_all(settings, ("192.0.2.7", b"\xff\x00 any bytes"))
    (one,) = kept(redis)
    assert one.request.body == b"\xff\x00 any bytes"
    assert (one.request.method, one.request.target) == ("POST", b"/webhooks/jobsiteon?a=1")
    assert one.request.all(b"x-signature") == [b"0" * 64]
    assert (one.peer, one.fault) == ("192.0.2.7", "no key fits")
    assert before - 1 <= one.received <= time.time()
    assert RejectedDeliveries(redis).get(one.id) == one


def test_a_receiver_keeps_what_it_refuses(settings: Settings, redis: Redis) -> None:
    """And tells the sender no more than before (P3)."""

    async def deliver() -> list[httpx.Response]:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
                sent = [{}, {"X-Signature": "0" * 40, "Cookie": "a=canary"}, {"X-Signature": "0" * 64}]
                return [await client.post(PATH, content=b"{}", headers=headers) for headers in sent]

    answers = asyncio.run(deliver())
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}
    found = kept(redis)
    assert [one.why("X-Signature")[0] for one in found] == [
        "no header",
        "40 hex digits: looks like SHA-1",
        "no key fits",
    ]
    assert found[1].left_out == ("cookie",)
    assert b"canary" not in b"".join(value for one in found for _, value in one.request.headers)


@pytest.mark.parametrize("name", ["authorization", "cookie", "x-api-key", "x-gitlab-token", "proxy-authorization"])
def test_what_lets_somebody_in_is_not_kept(name: str) -> None:
    """P7. But for the header in which the settings say that the signature is."""
    headers = [(name.encode(), b"canary"), (b"x-signature", b"1")]
    assert b"canary" not in pack_head("POST", b"/", b"", headers)
    assert b"canary" in pack_head("POST", b"/", b"", headers, always=(name.title(),))


def test_a_head_is_kept_within_bounds() -> None:
    many = [(f"x-{n}".encode(), b"v" * 3000) for n in range(1000)]
    assert len(pack_head("POST", b"/" * 100_000, b"q" * 100_000, [(b"x" * 100_000, b"v" * 100_000), *many])) < 40_000


@pytest.mark.parametrize("size", [0, 100, 3_000])
def test_all_stay_within_the_budget_and_the_oldest_go(redis: Redis, server: EmbeddedServer, size: int) -> None:
    settings = make_settings(server.url, rejected_bytes=20_000)
    for number in range(60):
        assert keep(redis, settings, f"{number:02}".encode() + bytes(size)) == "kept"
        assert held_bytes(redis) <= 20_000
    bodies = [one.request.body[:2] for one in kept(redis)]
    assert 4 < len(bodies) < 60
    assert bodies == [f"{number:02}".encode() for number in range(60 - len(bodies), 60)]


def test_one_that_is_larger_than_all_may_be_pushes_nobody_out(redis: Redis, server: EmbeddedServer) -> None:
    settings = make_settings(server.url, rejected_bytes=20_000)
    keep(redis, settings, b"small")
    assert keep(redis, settings, bytes(20_000)) == "too large"
    assert [one.request.body for one in kept(redis)] == [b"small"]


def test_removed_ones_make_room(redis: Redis, server: EmbeddedServer) -> None:
    settings = make_settings(server.url, rejected_bytes=20_000)
    for _ in range(100):
        keep(redis, settings, bytes(1000))
        RejectedDeliveries(redis).remove([one.id for one in kept(redis)])
    assert redis.xlen(KEY) == 0
    for _ in range(10):
        keep(redis, settings, bytes(1000))
    assert redis.xlen(KEY) == 10


def test_they_are_kept_for_a_while(redis: Redis, settings: Settings) -> None:
    """Each write removes those that are too old, and the key goes with the last of them."""
    long_ago = int((time.time() - settings.rejected_for - 60) * 1000)
    old: Any = {
        "upto": 300,
        "size": 300,
        "received": long_ago,
        "peer": "",
        "fault": "no header",
        "head": HEAD,
        "body": b"",
    }
    redis.xadd(KEY, old, id=f"{long_ago}-0")
    keep(redis, settings, b"new")
    assert [one.request.body for one in kept(redis)] == [b"new"]
    assert 0 < redis.ttl(KEY) <= settings.rejected_for


def test_none_is_kept_while_redis_is_nearly_full(own_server: EmbeddedServer) -> None:
    """P3: strangers never cost an event its room."""
    settings = make_settings(own_server.url)
    with connect(settings) as redis:
        redis.setrange("filler", 64 * 1024**2, b"\0")  # sent, it would be in the client's buffer for a moment too
        used = int(redis.info("memory")["used_memory"])
        redis.config_set("maxmemory", int(used / 0.75))
        assert keep(redis, settings) == "kept"
        redis.config_set("maxmemory", int(used / 0.85))
        assert keep(redis, settings) == "memory"
        dropped = Counter[str]()
        note_all(settings, ("192.0.2.1", b"{}"), dropped=dropped)
        assert dropped == {"memory": 1}
        assert redis.xlen(KEY) == 1


def test_a_flood_is_kept_in_part(redis: Redis, settings: Settings) -> None:
    """P3: one peer gets a share, all together get little more."""
    dropped = Counter[str]()
    note_all(settings, *[("192.0.2.1", b"{}")] * 500, dropped=dropped)
    assert redis.xlen(KEY) + dropped.total() == 500
    assert PEER_BURST <= 500 - dropped["rate"] < 1.5 * PEER_BURST
    redis.delete(KEY)
    dropped.clear()
    note_all(settings, *[(f"192.0.2.{n % 250}", b"{}") for n in range(1000)], dropped=dropped)
    assert BURST <= 1000 - dropped["rate"] < 1.5 * BURST
    assert redis.xlen(KEY) == 1000 - dropped.total()


def test_nobody_is_remembered_without_bound(settings: Settings, redis: Redis) -> None:
    async def session() -> int:
        rejections = Rejections(settings, lambda _: None)
        for number in range(3 * MOST_PEERS):
            rejections.note({}, b"", str(number), "no header")
            rejections._queue.clear()
        return len(rejections._peers)

    assert asyncio.run(session()) <= MOST_PEERS


def test_the_queue_is_bounded(settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes; a body that is larger than that waits only alone."""
    monkeypatch.setattr("app.receiver.rejections.BURST", 10_000.0)
    monkeypatch.setattr("app.receiver.rejections.MOST_WAITING_BYTES", 1000)
    dropped = Counter[str]()
    note_all(settings, *[(str(n), b"") for n in range(MOST_WAITING + 7)], dropped=dropped)
    assert dropped["queue"] == 7
    note_all(settings, ("a", bytes(2000)), ("b", b"1"), dropped=dropped)
    assert dropped["queue"] == 8


def test_without_redis_they_are_dropped_and_counted(own_server: EmbeddedServer) -> None:
    settings = make_settings(own_server.url)
    own_server.kill()
    dropped = Counter[str]()
    note_all(settings, *[("192.0.2.1", b"{}")] * 3, dropped=dropped)
    assert dropped == {"redis": 3}


def test_with_a_budget_of_none_none_is_kept(redis: Redis, server: EmbeddedServer) -> None:
    dropped = Counter[str]()
    note_all(make_settings(server.url, rejected_bytes=0), ("192.0.2.1", b"{}"), dropped=dropped)
    assert redis.exists(KEY) == 0
    assert not dropped


def test_the_log_says_at_most_once_a_second_that_some_are_dropped(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.receiver.rejections.SAY_SECONDS", 3600.0)
    note_all(settings, *[("192.0.2.1", b"canary")] * 500)
    output = "".join(capsys.readouterr())
    assert output.count("rejected deliveries not kept") == 1
    assert "canary" not in output


def words(
    fault: SignatureFault, headers: list[tuple[bytes, bytes]], body: bytes = b"{}"
) -> Callable[[Redis, Settings], list[str]]:
    def why(redis: Redis, settings: Settings) -> list[str]:
        head = pack_head("POST", b"/", b"", headers)
        arguments: Any = reject_arguments(settings, time.time(), "", fault, head, body)
        redis.eval(REJECT.text, 0, *arguments)
        return kept(redis)[-1].why("X-Signature")

    return why


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (words("no header", []), ["no header"]),
        (words("two headers", [(b"x-signature", b"0" * 64)] * 2), ["two headers"]),
        (words("looks like SHA-1", [(b"x-signature", b"a" * 40)]), ["40 hex digits: looks like SHA-1"]),
        (words("looks like SHA-1", [(b"x-signature", b"Z" * 27 + b"=")]), ["base64: looks like SHA-1"]),
        (words("empty body", [(b"x-signature", b"0" * 64)], b""), ["empty body", "body 0 bytes"]),
        (
            words("no header", [(b"x-hub-signature-256", b"sha256=" + b"0" * 64)]),
            ["no header", "other headers that look like signatures: x-hub-signature-256"],
        ),
    ],
)
def test_why_in_words(
    redis: Redis, settings: Settings, why: Callable[[Redis, Settings], list[str]], said: list[str]
) -> None:
    assert why(redis, settings) == said


def test_pages_are_read_to_the_end(redis: Redis, settings: Settings) -> None:
    for number in range(55):
        keep(redis, settings, str(number).encode())
    rejected = RejectedDeliveries(redis)
    forth = [one.request.body for one in rejected.oldest()]
    assert forth == [str(number).encode() for number in range(55)]
    assert [one.request.body for one in rejected.newest()] == forth[::-1]


def test_metrics_count_by_cause(settings: Settings, redis: Redis) -> None:
    async def scraped() -> str:
        app = create_app(settings)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://test") as client,
        ):
            await client.post(PATH, content=b"{}")
            return (await client.get("/metrics")).text

    text = asyncio.run(scraped())
    assert 'jobhook_unauthentic_total{cause="no header"} 1.0' in text
    assert 'jobhook_unauthentic_total{cause="no key fits"} 0.0' in text
    assert len(re.findall(r"^jobhook_rejected_not_kept_total\{", text, re.MULTILINE)) == 5
    wait_until(lambda: redis.xlen(KEY) == 1, "the delivery to be kept")
