"""Cached answers: as HTTP allows, shared by all clients of a key, forgotten when something changes."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from structlog.testing import capture_logs

from app.cli.embedded import EmbeddedServer
from app.config.settings import Settings
from app.simulator import CannedAnswer
from tests.support.processes import frozen
from tests.support.world import KINDS, TOKEN, Client, Kind, World, world
from workers.jobsiteon import ApiError, RateLimited
from workers.jobsiteon.cache import MOST_BYTES, SLOTS

PATH = "/contacts/con_1001"


@pytest.fixture
def jobsiteon(redis: "Redis", settings: Settings) -> Iterator[World]:
    with world(settings) as made:
        made.api.cache_control = "private, max-age=60"
        yield made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def client(jobsiteon: World, kind: Kind) -> Client:
    return jobsiteon.client(kind)


def test_what_is_fresh_is_not_asked_for_again(client: Client, jobsiteon: World) -> None:
    with capture_logs() as lines:
        assert client.get(PATH) == client.get(PATH)
    assert jobsiteon.api.statuses() == [200]
    assert [line["cached"] for line in lines] == [False, True]


@pytest.mark.parametrize("other", KINDS)
def test_it_is_shared(client: Client, jobsiteon: World, other: Kind) -> None:
    """Also between the two kinds of client."""
    assert client.get(PATH) == jobsiteon.client(other).get(PATH)
    assert len(jobsiteon.api.seen) == 1


def test_it_is_not_shared_between_keys(client: Client, jobsiteon: World) -> None:
    """What one key may read another may not."""
    jobsiteon.api.keys["another-token-0123456789"] = jobsiteon.api.keys[TOKEN]
    client.get(PATH)
    jobsiteon.client(api_token=SecretStr("another-token-0123456789")).get(PATH)
    assert len(jobsiteon.api.seen) == 2


def test_it_does_not_count_against_the_limit(jobsiteon: World, kind: Kind) -> None:
    client = jobsiteon.client(kind, api_rate_limit=1)
    for _ in range(5):
        client.get(PATH)
    with pytest.raises(RateLimited):
        client.get("/contacts/con_1002")


def test_what_is_stale_is_asked_about(client: Client, jobsiteon: World) -> None:
    jobsiteon.api.cache_control = "max-age=0"
    before = client.get(PATH)
    assert client.get(PATH) == before
    jobsiteon.api.objects["contacts"]["con_1001"] = before | {"notes": "new"}
    assert client.get(PATH)["notes"] == "new"
    assert jobsiteon.api.statuses() == [200, 304, 200]


@pytest.mark.parametrize("cache_control", [None, "private"])
def test_how_long_it_is_fresh_is_not_guessed(client: Client, jobsiteon: World, cache_control: str | None) -> None:
    """RFC 9111 would allow a tenth of its age."""
    headers = {"last-modified": "Mon, 06 Jan 2020 10:00:00 GMT"}
    if cache_control:
        headers["cache-control"] = cache_control
    jobsiteon.api.cache_control = None
    jobsiteon.api.next_answers += [CannedAnswer(body=b'{"id":"1"}', headers=headers), CannedAnswer(304, b"", headers)]
    assert client.get(PATH) == client.get(PATH)
    assert jobsiteon.api.statuses() == [200, 304]


@pytest.mark.parametrize("headers", [{}, {"cache-control": "no-store, max-age=60"}])
def test_what_must_not_or_need_not_be_kept_is_not(
    client: Client, jobsiteon: World, redis: "Redis", headers: dict[str, str]
) -> None:
    jobsiteon.api.next_answers += [CannedAnswer(body=b'{"id":"1"}', headers=headers)]
    client.get(PATH)
    assert not redis.keys("jobhook:api:cache:*")


@pytest.mark.parametrize("entity", ["contact", "contacts"])
def test_a_webhook_makes_forget_the_resource(client: Client, jobsiteon: World, entity: str) -> None:
    def read() -> int:
        before = len(jobsiteon.api.seen)
        client.get(PATH)
        client.get("/contacts/con_1002")
        client.get("/jobs/job_3001")
        return len(jobsiteon.api.seen) - before

    assert read() == 3
    assert read() == 0
    client.invalidate(entity, "con_1001")
    assert read() == 2
    client.invalidate("contact")
    assert read() == 2
    client.invalidate("quote", "con_1001")
    assert read() == 0


def test_it_makes_others_forget(jobsiteon: World, kind: Kind) -> None:
    for reader in KINDS:
        before = len(jobsiteon.api.seen)
        jobsiteon.client(reader).get(PATH)
        jobsiteon.client(kind).invalidate("contact", "con_1001")
        jobsiteon.client(reader).get(PATH)
        assert len(jobsiteon.api.seen) - before in (1, 2)
    assert len(jobsiteon.api.seen) == 3


def test_an_id_of_odd_characters_is_forgotten_too(client: Client, jobsiteon: World) -> None:
    client.create("/contacts", {"id": "a b"})
    for _ in range(2):
        client.get("/contacts/a b")
        client.invalidate("contact", "a b")
    assert len(jobsiteon.api.seen) == 3


def test_a_write_makes_forget(client: Client, jobsiteon: World) -> None:
    client.get(PATH)
    client.items("/contacts")
    client.update(PATH, {"notes": "mine"})
    assert client.get(PATH)["notes"] == "mine"
    assert client.items("/contacts")[0]["notes"] == "mine"


def test_also_one_that_seems_to_have_failed(client: Client, jobsiteon: World) -> None:
    client.get(PATH)
    jobsiteon.api.next_answers.append(CannedAnswer(500))
    with pytest.raises(ApiError):
        client.update(PATH, {"notes": "mine"})
    client.get(PATH)
    assert jobsiteon.api.statuses() == [200, 500, 200]


def test_lists_and_large_answers_are_not_kept(client: Client, jobsiteon: World, redis: "Redis") -> None:
    """The inbox lives in the same Redis."""
    large = b'{"id":"%s"}' % (b"x" * MOST_BYTES)
    jobsiteon.api.next_answers.append(CannedAnswer(body=large, headers={"etag": '"1"', "cache-control": "max-age=60"}))
    client.get(PATH)
    client.items("/contacts")
    assert not redis.keys("jobhook:api:cache:*")


def test_the_cache_is_small_whatever_is_asked_for(kind: Kind, jobsiteon: World, redis: "Redis") -> None:
    """Each answer has a slot; a newer one takes the place of an older one."""
    jobsiteon.api.cache_control, jobsiteon.api.limit = "max-age=0", 1000
    client = jobsiteon.client(kind, api_rate_limit=1000)
    assert SLOTS * MOST_BYTES <= 32 * 1024**2
    for number in range(200):
        body = b'{"id":"%s"}' % (b"x" * 5000 * (number % 40))
        jobsiteon.api.next_answers.append(CannedAnswer(body=body, headers={"etag": f'"{number}"'}))
        client.get(f"/contacts/con_{number}")
    entries = [redis.strlen(key) for key in redis.scan_iter("jobhook:api:cache:*")]
    assert entries
    assert sum(entries) < 1024**2
    assert max(entries) <= MOST_BYTES


def test_nothing_is_kept_while_redis_is_nearly_full(own_server: EmbeddedServer, jobsiteon: World, kind: Kind) -> None:
    """P1: what memory there is belongs to the deliveries."""
    client = jobsiteon.client(kind, redis_url=own_server.url)
    with Redis.from_url(own_server.url) as server:
        server.setrange("padding", 32 * 1024**2, b"x")  # without a buffer of that size, which would be freed again
        used: Any = server.info("memory")
        server.config_set("maxmemory", int(used["used_memory"] / 0.9))
        client.get(PATH)
        assert not server.keys("jobhook:api:cache:*")
        server.config_set("maxmemory", int(used["used_memory"] * 3))
        client.get(PATH)
        assert server.keys("jobhook:api:cache:*")


def test_what_could_not_be_forgotten_is_before_the_next_reading(
    own_server: EmbeddedServer, jobsiteon: World, kind: Kind
) -> None:
    """Redis did not answer when the webhook came."""
    client = jobsiteon.client(kind, redis_url=own_server.url)
    client.get(PATH)
    with frozen(own_server.pid), capture_logs() as lines:
        client.invalidate("contact", "con_1001")
    assert [line["event"] for line in lines] == ["api cache not invalidated"]
    for _ in range(2):
        client.get(PATH)
    assert len(jobsiteon.api.seen) == 2


def test_a_long_list_costs_redis_a_few_commands_a_page(jobsiteon: World, redis: "Redis") -> None:
    """All lists of a resource had one key, so each page was as dear as all before it: 17,551 commands for 100."""
    pages, client = 60, jobsiteon.client(api_rate_limit=1000)
    jobsiteon.api.limit = 1000
    jobsiteon.api.next_answers += [
        CannedAnswer(body=b'{"data":[%d],"next_cursor":"%d"}' % (page, page)) for page in range(pages - 1)
    ] + [CannedAnswer(body=b'{"data":["last"]}')]
    before = _commands(redis)
    assert len(client.items("/contacts")) == pages
    assert (_commands(redis) - before) / pages < 30
    before = _commands(redis)
    client.invalidate("contact", "con_1001")
    assert _commands(redis) - before < 10  # the INCR, and what it takes to count it


def test_an_answer_under_way_when_a_webhook_comes_is_not_fresh_afterwards(client: Client, jobsiteon: World) -> None:
    """The generation was read before the request was sent; the webhook's is another."""
    other = jobsiteon.client()
    jobsiteon.api.before_answer = lambda: other.invalidate("contact", "con_1001")
    client.get(PATH)
    jobsiteon.api.before_answer = None
    jobsiteon.api.objects["contacts"]["con_1001"]["notes"] = "new"
    assert client.get(PATH)["notes"] == "new"


def test_a_redirected_or_varying_answer_is_not_kept(client: Client, jobsiteon: World, redis: "Redis") -> None:
    jobsiteon.api.next_answers += [
        CannedAnswer(302, b"", {"location": "/v1/contacts/con_1002", "cache-control": "max-age=60"}),
        CannedAnswer(body=b'{"id":"1"}', headers={"cache-control": "max-age=60"}),
        CannedAnswer(body=b'{"id":"1"}', headers={"cache-control": "max-age=60", "vary": "*"}),
    ]
    client.get(PATH)
    client.get(PATH)
    assert not redis.keys("jobhook:api:cache:*")


@pytest.mark.parametrize(
    ("headers", "requests"),
    [
        ({"cache-control": "max-age=60"}, 1),
        ({"cache-control": 'Private="a,b", MAX-AGE="60"'}, 1),
        ({"cache-control": "max-age=60, max-age=0"}, 2),
        ({"cache-control": "max-age=60", "age": "60"}, 2),
        ({"cache-control": "max-age=999999999", "age": "7200"}, 1),
        ({"cache-control": "max-age=-1"}, 2),
        ({"cache-control": "max-age=60, no-cache"}, 2),
        ({"expires": "Tue, 06 Jan 2099 10:01:00 GMT"}, 1),
        ({"expires": "Mon, 06 Jan 2020 10:01:00 GMT"}, 2),
        ({"expires": "0"}, 2),
    ],
)
def test_how_long_it_is_fresh_is_what_it_says(
    client: Client, jobsiteon: World, headers: dict[str, str], requests: int
) -> None:
    jobsiteon.api.cache_control = None
    jobsiteon.api.next_answers += [CannedAnswer(body=b'{"id":"1"}', headers=headers)] * 2
    for _ in range(2):
        client.get(PATH)
    assert len(jobsiteon.api.seen) == requests


def _commands(redis: "Redis") -> int:
    stats: Any = redis.info("commandstats")
    return sum(each["calls"] for each in stats.values())
