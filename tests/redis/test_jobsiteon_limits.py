"""The rate limit: counted in Redis, for all processes that use a key."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import time
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import SecretStr
from redis import Redis

from app.cli.embedded import EmbeddedServer, free_port
from app.config.settings import Settings
from app.simulator import CannedAnswer
from tests.support.stack import KEY, ROOT
from tests.support.world import KINDS, TOKEN, Kind, World, world
from workers.jobsiteon import AsyncJobsiteOn, RateLimited, Unreachable
from workers.jobsiteon.exchange import MOST_CONNECTIONS
from workers.jobsiteon.limits import RateLimit, fingerprint

LIMIT, WINDOW = 20, 1.0


@pytest.fixture
def jobsiteon(redis: "Redis", settings: Settings) -> Iterator[World]:
    with world(settings, limit=LIMIT, window=WINDOW) as made:
        yield made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


def start_caller(jobsiteon: World, calls: int) -> "subprocess.Popen[bytes]":
    environment = {
        "JOBSITEON_API_KEY": KEY,
        "JOBSITEON_API_TOKEN": TOKEN,
        "JOBSITEON_API_URL": jobsiteon.url,
        "JOBHOOK_API_PLAIN_LOOPBACK": "true",
        "JOBHOOK_API_RATE_LIMIT": str(LIMIT),
        "JOBHOOK_API_RATE_WINDOW": f"{WINDOW}s",
        "REDIS_URL": jobsiteon.settings.redis_url,
        "JOBHOOK_ENV_FILE": os.devnull,
    }
    command = [sys.executable, "-m", "tests.support.caller", str(calls), "/contacts/con_1001"]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def test_four_processes_keep_the_limit_in_every_window(jobsiteon: World) -> None:
    """Time scaled down: 20 requests a second stand for 100 a minute."""
    callers = [start_caller(jobsiteon, 20) for _ in range(4)]
    assert [caller.wait(60) for caller in callers] == [0] * 4
    assert len(jobsiteon.api.seen) == 80
    assert set(jobsiteon.api.statuses()) <= {200, 304}
    assert LIMIT / 2 < jobsiteon.api.most_in_window(WINDOW) <= LIMIT


def test_no_window_holds_more_whenever_requests_come(
    redis: "Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the minute begins is not documented. What is told to wait so long gets its place then."""
    rate = RateLimit(settings.model_copy(update={"api_rate_limit": 3}), "key")

    @hypothesis.settings(max_examples=60)
    @hypothesis.given(pauses=st.lists(st.floats(0, 40), max_size=30))
    def check(pauses: list[float]) -> None:
        redis.flushall()
        now, taken = 1e9, []
        monkeypatch.setattr("workers.jobsiteon.limits._OneClock.now", lambda _: now)
        for pause in pauses:
            now += pause
            if seconds := rate.wait():
                now += seconds + 0.001
                assert rate.wait() == 0
            taken.append(now)
        assert all(later - earlier > 60 for earlier, later in zip(taken, taken[3:], strict=False))

    check()
    rate.close()


def test_threads_share_a_client(jobsiteon: World) -> None:
    client = jobsiteon.client(api_rate_limit=LIMIT, api_rate_window=WINDOW)

    def call(_: int) -> bool:
        try:
            return bool(client.get("/contacts/con_1001"))
        except RateLimited:
            return False

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(call, range(LIMIT * 2)))
    assert done >= LIMIT
    assert len(jobsiteon.api.seen) == done
    assert set(jobsiteon.api.statuses()) <= {200, 304}
    assert jobsiteon.api.most_in_window(WINDOW) <= LIMIT


def test_a_short_wait_is_slept(jobsiteon: World, kind: Kind) -> None:
    client = jobsiteon.client(kind, api_rate_limit=1, api_rate_window=0.5)
    for _ in range(2):
        client.get("/contacts/con_1001")
    first, second = jobsiteon.api.seen
    assert second.at - first.at > 0.5


def test_a_long_wait_gives_the_event_back(jobsiteon: World, kind: Kind) -> None:
    """Without a request, and with the time at which there is a place again."""
    client = jobsiteon.client(kind, api_rate_limit=1, api_rate_window=60)
    client.get("/contacts/con_1001")
    with pytest.raises(RateLimited, match="1 requests in 60 s") as raised:
        client.update("/contacts/con_1001", {})
    assert 1 < raised.value.seconds <= 61
    assert raised.value.status is None
    assert not raised.value.counts
    assert len(jobsiteon.api.seen) == 1


def test_both_kinds_of_client_share_the_count(jobsiteon: World) -> None:
    slow: dict[str, Any] = {"api_rate_limit": 1, "api_rate_window": 60.0}
    jobsiteon.client("sync", **slow).get("/contacts/con_1001")
    with pytest.raises(RateLimited):
        jobsiteon.client("async", **slow).get("/contacts/con_1001")


def test_each_key_has_its_own(jobsiteon: World) -> None:
    other = "another-token-0123456789"
    jobsiteon.api.keys[other] = jobsiteon.api.keys[TOKEN]
    slow: dict[str, Any] = {"api_rate_limit": 1, "api_rate_window": 60.0}
    jobsiteon.client(**slow).get("/contacts/con_1001")
    assert jobsiteon.client(**slow, api_token=SecretStr(other)).get("/contacts/con_1001")


def test_retries_count(jobsiteon: World, kind: Kind) -> None:
    jobsiteon.api.next_answers += [CannedAnswer(500)] * 4
    client = jobsiteon.client(kind, api_rate_limit=2, api_rate_window=60)
    with pytest.raises(RateLimited):
        client.get("/contacts/con_1001")
    assert jobsiteon.api.statuses() == [500, 500]


def test_a_429_holds_back_everybody(jobsiteon: World, kind: Kind) -> None:
    """Somebody else may use the same key: our count does not know of them."""
    jobsiteon.api.next_answers.append(CannedAnswer(429, b"", {"retry-after": "30"}))
    with pytest.raises(RateLimited):
        jobsiteon.client(kind).get("/contacts/con_1001")
    with pytest.raises(RateLimited) as raised:
        jobsiteon.client().get("/jobs/job_3001")
    assert 25 < raised.value.seconds <= 30
    assert len(jobsiteon.api.seen) == 1


def test_the_clock_is_that_of_redis(redis: "Redis", settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines disagree about the time; a window that they share must not."""
    rate = RateLimit(settings.model_copy(update={"api_rate_limit": 1}), "key")
    assert rate.wait() == 0
    monkeypatch.setattr("time.time", lambda: time() + 3600)
    assert 55 < rate.wait() <= 61
    rate.close()


def test_without_redis_nothing_is_sent(own_server: EmbeddedServer, jobsiteon: World, kind: Kind) -> None:
    """Nothing is sent uncounted; the worker could not record what it has done either."""
    client = jobsiteon.client(kind, redis_url=own_server.url)
    own_server.kill()
    with pytest.raises(RateLimited, match="Redis") as raised:
        client.get("/contacts/con_1001")
    assert raised.value.seconds > 0
    assert not jobsiteon.api.seen


def test_the_name_of_a_key_is_not_the_key(jobsiteon: World, redis: "Redis") -> None:
    """P7."""
    jobsiteon.client().get("/contacts/con_1001")
    assert redis.keys(f"jobhook:api:rate/{fingerprint(TOKEN.encode())}*")
    assert not redis.keys(f"*{TOKEN}*")


def test_what_is_kept_expires(jobsiteon: World, redis: "Redis") -> None:
    jobsiteon.api.cache_control = "max-age=60"
    client = jobsiteon.client()
    client.get("/contacts/con_1001")
    jobsiteon.api.next_answers.append(CannedAnswer(429, b"", {"retry-after": "30"}))
    with pytest.raises(RateLimited):
        client.get("/jobs/job_3001")
    keys = list(redis.scan_iter("jobhook:api:*"))
    assert len(keys) >= 3
    assert all(0 < redis.ttl(key) <= 2 * 3600 for key in keys)


def test_a_place_is_taken_by_what_has_a_connection(jobsiteon: World, redis: "Redis") -> None:
    """More calls at once than there are connections: those that only wait for one take no place from others."""
    settings = jobsiteon.settings.model_copy(update={"api_timeout": 2.0})

    async def call_all() -> list[Any]:
        async with AsyncJobsiteOn(settings) as client:
            calls = [client.get(f"/contacts/con_{number}") for number in range(40)]
            return await asyncio.gather(*calls, return_exceptions=True)

    jobsiteon.api.limit = 1000
    jobsiteon.api.next_answers += [CannedAnswer(body=b'{"id":"1"}', delay=3.0)] * 100
    answers = asyncio.run(call_all())
    assert {type(answer) for answer in answers} == {Unreachable}
    (rate,) = redis.keys("jobhook:api:rate/*")
    assert redis.llen(rate) <= 2 * MOST_CONNECTIONS  # at the deadline a connection is free for one more


def test_no_place_is_taken_by_what_finds_no_connection(jobsiteon: World, kind: Kind, redis: "Redis") -> None:
    client = jobsiteon.client(kind, api_url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(Unreachable):
        client.get("/contacts/con_1001")
    assert not redis.keys("jobhook:api:rate/*")


def test_of_several_pauses_the_longest_holds(redis: "Redis", settings: Settings) -> None:
    """Answers that were under way together may each ask for another wait."""
    rate = RateLimit(settings, "key")
    for seconds in (30.0, 5.0, 0.0):
        rate.pause(seconds)
    assert 25 < rate.wait() <= 30
    rate.pause(50.0)
    assert 45 < rate.wait() <= 50
    rate.close()


def test_answers_under_way_together_leave_the_longest_pause(jobsiteon: World, redis: "Redis") -> None:
    """Their order of arrival is chance."""
    seconds = ["5", "40", "3", "20"]
    jobsiteon.api.next_answers += [CannedAnswer(429, b"", {"retry-after": each}, delay=0.3) for each in seconds]

    async def call_all() -> list[Any]:
        async with AsyncJobsiteOn(jobsiteon.settings) as client:
            calls = [client.get(f"/contacts/con_{number}") for number in seconds]
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(call_all())
    assert {type(answer) for answer in answers} == {RateLimited}
    assert 35_000 < redis.pttl("jobhook:api:pause:" + fingerprint(TOKEN.encode())) <= 40_000


def test_a_pause_is_that_of_one_key(jobsiteon: World) -> None:
    other = "another-token-0123456789"
    jobsiteon.api.keys[other] = jobsiteon.api.keys[TOKEN]
    jobsiteon.api.next_answers.append(CannedAnswer(429, b"", {"retry-after": "30"}))
    with pytest.raises(RateLimited):
        jobsiteon.client().get("/contacts/con_1001")
    assert jobsiteon.client(api_token=SecretStr(other)).get("/contacts/con_1001")
