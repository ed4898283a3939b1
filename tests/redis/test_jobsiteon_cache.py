"""Cached answers: as HTTP allows, shared by all clients of a key, forgotten when something changes."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from redis import Redis
from structlog.testing import capture_logs

from app.config.settings import Settings
from app.simulator import CannedAnswer
from tests.support.world import KINDS, TOKEN, Client, Kind, World, world
from workers.jobsiteon import ApiError, RateLimited

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
def test_a_webhook_makes_forget_the_element_and_the_lists(client: Client, jobsiteon: World, entity: str) -> None:
    def read() -> int:
        before = len(jobsiteon.api.seen)
        client.get(PATH)
        client.get("/contacts/con_1002")
        client.get("/jobs/job_3001")
        client.items("/contacts", city="Boulder")
        return len(jobsiteon.api.seen) - before

    assert read() == 6
    assert read() == 0
    client.invalidate(entity, "con_1001")
    assert read() == 4
    client.invalidate("contact")
    assert read() == 3
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
