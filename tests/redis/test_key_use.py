"""What is remembered of keys, and what is said of it (P9)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from structlog.testing import capture_logs

from app.cli.embedded import EmbeddedServer
from app.config.keys import fingerprint
from app.config.settings import Settings
from app.delivery.signature import sign
from app.inbox import keys as store
from app.inbox.keys import DAYS, MOST_KEYS, Use, day_of, known, tell
from app.ops.keys import DAY_SECONDS, DUE_DAYS, OVERDUE_DAYS, SILENT_SECONDS, check, measure, standings
from app.receiver.keys import Keys
from tests.support.processes import frozen
from tests.support.stack import KEY, make_settings

OLD = "key-before-the-rotation-0123456789"
DAY_MS = int(DAY_SECONDS * 1000)
Counts = list[tuple[str, int]]


@pytest.fixture
def rotating(server: EmbeddedServer) -> Settings:
    """The settings in the middle of a rotation."""
    return make_settings(server.url, previous_api_keys=(SecretStr(OLD),))


def of(key: str) -> str:
    return fingerprint(key.encode())


def shift(redis: "Redis", key: str, field: str, milliseconds: int) -> None:
    """Lets something have been earlier."""
    redis.hincrby(store.KEY, f"{of(key)}:{field}", -milliseconds)


def said(settings: Settings, redis: "Redis") -> dict[str, str]:
    return {key.name: key.says for key in standings(settings, redis)}


def test_a_key_is_known_from_when_it_was_first_held(redis: "Redis") -> None:
    (first,) = tell(redis, [Use(of(KEY), 0, 0)])
    (again,) = tell(redis, [Use(of(KEY), 3, 1.5)])
    memory = known(redis)
    key = memory.keys[of(KEY)]
    assert first == again == key.since
    assert key.last
    assert 1.5 <= memory.now - key.last < 30
    assert key.days == {day_of(memory.now): 3}
    assert memory.verified(of(KEY), 1) == 3


def test_several_receivers_add_up_and_the_last_delivery_counts(redis: "Redis") -> None:
    tell(redis, [Use(of(KEY), 2, 0.0)])
    last = known(redis).keys[of(KEY)].last
    tell(redis, [Use(of(KEY), 5, 60.0)])  # it was cut off for a minute
    key = known(redis).keys[of(KEY)]
    assert (key.last, sum(key.days.values())) == (last, 7)


def test_keys_that_nobody_has_signed_with_take_no_more_room(redis: "Redis") -> None:
    for number in range(MOST_KEYS + 5):
        tell(redis, [Use(of(f"key {number}"), 0, 0.0)])
    assert len(known(redis).keys) == MOST_KEYS


def test_days_go_after_a_month_and_keys_when_there_are_too_many(redis: "Redis") -> None:
    """Bounded, whatever is done for how long."""
    tell(redis, [Use(of(KEY), 1, 0.0)])
    today = int(known(redis).now // DAY_SECONDS)
    redis.hset(store.KEY, mapping={f"{of(KEY)}:day:{today - age}": 1 for age in range(1, DAYS + 5)})
    for number in range(MOST_KEYS + 5):
        tell(redis, [Use(of(KEY), 0, 0.0), Use(of(f"another {number}"), 1, 0.0)])
        shift(redis, f"another {number}", "held", (MOST_KEYS + 10 - number) * DAY_MS)
    keys = known(redis).keys
    assert len(keys) == MOST_KEYS
    assert of("another 0") not in keys
    assert {of(KEY), of(f"another {MOST_KEYS + 4}")} <= keys.keys()
    assert len(keys[of(KEY)].days) == DAYS
    assert min(keys[of(KEY)].days) == day_of(known(redis).now) - timedelta(days=DAYS - 1)


def test_what_somebody_else_has_written_there_is_left_out(redis: "Redis") -> None:
    redis.hset(store.KEY, mapping={"x": "y", "a:b:c": "1", f"{of(KEY)}:since": "long ago", f"{of(KEY)}:day:x": "1"})
    assert not known(redis).keys.get(of(KEY), store.KnownKey()).days
    assert tell(redis, [Use(of(KEY), 1, 0.0)])[0] > 0


def test_a_previous_key_is_safe_to_revoke_once_it_is_silent_and_the_current_one_is_not(
    redis: "Redis", rotating: Settings
) -> None:
    assert said(rotating, redis) == dict.fromkeys(["current", "previous 1"], "not seen at work yet")
    tell(redis, [Use(of(KEY), 0, 0.0), Use(of(OLD), 1, 0.0)])
    shift(redis, OLD, "since", DAY_MS)
    shift(redis, OLD, "last", 3 * int(SILENT_SECONDS) * 1000)
    assert said(rotating, redis)["current"] == "0 days old, has verified nothing yet"
    shift(redis, KEY, "since", DAY_MS)
    assert said(rotating, redis)["current"] == "1 day old, has verified nothing yet"
    assert said(rotating, redis)["previous 1"].endswith("UTC, the current key has not taken over")

    tell(redis, [Use(of(KEY), 1, 0.0)])
    assert said(rotating, redis)["previous 1"].startswith("silent since ")
    assert said(rotating, redis)["previous 1"].endswith(": safe to revoke")

    tell(redis, [Use(of(OLD), 1, 0.0), Use(of(KEY), 1, 0.0)])
    assert "safe to revoke" not in said(rotating, redis)["previous 1"]
    shift(redis, OLD, "last", 60_000)
    assert ": safe to revoke after " in said(rotating, redis)["previous 1"]


def test_a_previous_key_that_never_verified_anything_is_silent_from_when_it_is_known(
    redis: "Redis", rotating: Settings
) -> None:
    tell(redis, [Use(of(KEY), 0, 0.0), Use(of(OLD), 0, 0.0)])
    assert said(rotating, redis)["previous 1"] == "never used"
    shift(redis, OLD, "since", DAY_MS)
    tell(redis, [Use(of(KEY), 1, 0.0)])
    assert said(rotating, redis)["previous 1"].endswith(": safe to revoke")


@pytest.mark.parametrize(
    ("days", "finding"),
    [
        (DUE_DAYS - 1, None),
        (DUE_DAYS, f"the current key is {DUE_DAYS} days old"),
        (OVERDUE_DAYS - 1, f"the current key is {OVERDUE_DAYS - 1} days old"),
        (OVERDUE_DAYS, f"OVERDUE: the current key is {OVERDUE_DAYS} days old"),
    ],
)
def test_the_age_of_the_current_key_is_told_and_louder_when_it_is_overdue(
    days: int, finding: str | None, redis: "Redis", settings: Settings
) -> None:
    """JobsiteOn's rule: every 90 days. It is no reason to be not ready."""
    tell(redis, [Use(of(KEY), 1, 0.0)])
    shift(redis, KEY, "since", days * DAY_MS)
    found = list(check(settings, redis))
    assert [one.level for one in found] == ([] if finding is None else ["warn"])
    assert all(one.finding.startswith(str(finding)) for one in found)
    (measured,) = measure(settings, redis)
    assert measured.role == "current"
    assert days * DAY_SECONDS <= measured.age < (days + 1) * DAY_SECONDS
    assert measured.unused < DAY_SECONDS


def test_a_key_that_is_not_configured_is_remembered(redis: "Redis", settings: Settings) -> None:
    tell(redis, [Use(of(KEY), 0, 0.0), Use(of(OLD), 2, 0.0)])
    assert said(settings, redis)["elsewhere"] == "not configured here, but a receiver had it less than a minute ago"
    shift(redis, OLD, "held", DAY_MS)
    *_, retired = standings(settings, redis)
    assert (retired.name, retired.fingerprint, retired.week) == ("retired", of(OLD), 2)
    assert retired.says.startswith("retired on ")


def test_without_redis_a_previous_key_is_mentioned_all_the_same(rotating: Settings) -> None:
    with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nobody:
        (finding,) = check(rotating, nobody)
    assert finding.finding == "the key `previous 1` is still accepted: not seen at work yet"


def deliver(keys: Keys, key: str) -> None:
    headers = {b"x-signature": [sign(key.encode(), b"{}").encode()]}
    keys.ring.verify(lambda name: headers.get(name, []), b"{}", "POST", b"/", b"")


def counting(settings: Settings) -> tuple[Keys, Counts]:
    counts: Counts = []
    keys = Keys(settings, lambda role, number: counts.append((role, number)) if number else None)
    return keys, counts


def test_a_receiver_tells_what_it_has_verified_and_nothing_twice(redis: "Redis", rotating: Settings) -> None:
    keys, counts = counting(rotating)
    keys.tell()
    assert known(redis).keys[of(OLD)].last is None
    for key in (KEY, KEY, OLD):
        deliver(keys, key)
    keys.tell()
    keys.tell()
    memory = known(redis)
    assert [memory.verified(of(key), 1) for key in (KEY, OLD)] == [2, 1]
    assert counts == [("current", 2), ("previous", 1)]
    keys.close()


def test_what_was_verified_just_before_a_change_of_keys_is_told_too(redis: "Redis", rotating: Settings) -> None:
    keys, counts = counting(rotating.model_copy(update={"previous_api_keys": (), "api_key": SecretStr(OLD)}))
    deliver(keys, OLD)
    keys.use(rotating)
    deliver(keys, OLD)
    deliver(keys, KEY)
    keys.tell()
    memory = known(redis)
    assert [memory.verified(of(key), 1) for key in (KEY, OLD)] == [1, 2]
    assert sorted(counts) == [("current", 1), ("current", 1), ("previous", 1)]
    deliver(keys, OLD)
    keys.close()
    assert known(redis).verified(of(OLD), 1) == 3


def test_a_key_that_is_taken_out_is_not_held_by_what_is_told_of_it_afterwards(
    redis: "Redis", rotating: Settings, settings: Settings
) -> None:
    keys, _ = counting(rotating)
    keys.tell()
    deliver(keys, OLD)
    shift(redis, OLD, "held", DAY_MS)
    held = known(redis).keys[of(OLD)].held
    keys.use(settings)
    keys.close()
    memory = known(redis)
    assert (memory.keys[of(OLD)].held, memory.verified(of(OLD), 1)) == (held, 1)


def test_what_redis_could_not_be_told_is_told_later(own_server: EmbeddedServer) -> None:
    """P6: in its own time; no delivery waits for it."""
    keys, counts = counting(make_settings(own_server.url))
    deliver(keys, KEY)
    with frozen(own_server.pid), capture_logs() as logs:
        keys.tell()
        keys.tell()
    assert [line["event"] for line in logs] == ["use of keys not noted"]
    assert counts == [("current", 1)]
    deliver(keys, KEY)
    keys.tell()
    with Redis(port=own_server.port) as redis:
        assert known(redis).verified(of(KEY), 1) >= 2
    keys.close()


@pytest.mark.parametrize(("days", "level"), [(DUE_DAYS, "warning"), (OVERDUE_DAYS, "error")])
def test_the_log_speaks_of_the_age_once_a_day(days: int, level: str, redis: "Redis", settings: Settings) -> None:
    tell(redis, [Use(of(KEY), 0, 0.0)])
    shift(redis, KEY, "since", days * DAY_MS)
    keys, _ = counting(settings)
    lines = logged(keys.tell)
    deliver(keys, KEY)
    lines += logged(keys.tell)
    keys.close()
    assert [(line["log_level"], line["days"]) for line in lines] == [(level, days)]


def logged(act: Callable[[], None]) -> list[Any]:
    with capture_logs() as lines:
        act()
    return list(lines)
