"""When something is told, told again, and told to be over: time is a number here."""

from dataclasses import replace

import orjson
import pytest

from app.config.settings import Settings
from app.errors import ConfigError
from app.ops import outbox
from app.ops.alerts import (
    GATHER_SECONDS,
    LONGEST_QUIET_SECONDS,
    MOST_ALERTS,
    QUIET_SECONDS,
    REMIND_SECONDS,
    Finding,
    Memory,
    Message,
    advance,
)
from app.ops.messenger import destinations, refuse_unusable
from app.ops.trends import FEWEST_ATTEMPTS, FEWEST_REFUSED, WINDOW_SECONDS, Sample, rates, remembered, silence
from tests.support.stack import make_settings

NOW = 1_800_000_000.0
FULL = Finding("memory", "memory: 9 MiB used of 10", "raise maxmemory", patience=60.0)
DEAD = Finding(
    "dead:book:ValueError", "events have died in the handler book, of ValueError", "look", quiet=86400, times=1
)


class Clockwork:
    """Looks again and again, as supervisors do."""

    def __init__(self) -> None:
        self.now = NOW
        self.memory = Memory()
        self.messages: list[Message] = []

    def look(self, *findings: Finding, after: float = 10.0, **more: object) -> Message | None:
        self.now += after
        stored = orjson.loads(orjson.dumps(self.memory.stored))  # as it is kept in Redis
        self.memory, message = advance(Memory.read(stored), findings, self.now, **more)  # type: ignore[arg-type]
        if message:
            self.messages.append(message)
        return message

    def looks(self, seconds: float, *findings: Finding) -> list[Message]:
        """The messages of so much time in which these are found."""
        before = len(self.messages)
        for _ in range(round(seconds / 10)):
            self.look(*findings)
        return self.messages[before:]


@pytest.fixture
def clock() -> Clockwork:
    return Clockwork()


def test_what_lasts_is_told_once(clock: Clockwork) -> None:
    assert clock.look(FULL) is None
    assert clock.looks(50, FULL) == []
    (told,) = clock.looks(3600, FULL)
    assert (told.title, told.level) == ("Jobhook: memory: 9 MiB used of 10", "warn")
    assert "memory: 9 MiB used of 10 (since 2027-01-15 08:00 UTC)\nTo do: raise maxmemory." in told.body


def test_what_does_not_last_is_not_told(clock: Clockwork) -> None:
    for _ in range(100):
        clock.looks(50, FULL)
        clock.looks(10)
    assert clock.messages == []
    assert clock.memory.alerts == {}


def test_what_is_not_found_any_more_is_over_after_a_while(clock: Clockwork) -> None:
    clock.looks(100, FULL)
    assert clock.looks(QUIET_SECONDS - 10) == []
    (over,) = clock.looks(3600)
    assert (over.title, over.level) == ("Jobhook: over: memory: 9 MiB used of 10", "ok")
    assert "Over: memory: 9 MiB used of 10" in over.body


def test_a_short_absence_ends_nothing(clock: Clockwork) -> None:
    clock.looks(100, FULL)
    for _ in range(100):
        clock.looks(QUIET_SECONDS - 20)
        clock.looks(10, FULL)
    assert len(clock.messages) == 1


def test_what_comes_and_goes_is_told_ever_less_often(clock: Clockwork) -> None:
    day = range(round(86400 / 360))
    for _ in day:
        clock.looks(180, FULL)
        clock.looks(180)
    assert 3 < len(clock.messages) < 10  # and not 480
    assert clock.looks(2 * LONGEST_QUIET_SECONDS)[-1].title == "Jobhook: over: memory: 9 MiB used of 10"


def test_one_reminder_a_day_of_all_that_is_still_there(clock: Clockwork) -> None:
    other = Finding("keys", "keys: the current key is 85 days old", "rotate")
    clock.looks(200, FULL)
    clock.looks(600, FULL, other)
    assert len(clock.messages) == 2
    assert clock.looks(REMIND_SECONDS - 1200, FULL, other) == []
    (reminder,) = clock.looks(2400, FULL, other)
    assert reminder.title == "Jobhook: still: memory: 9 MiB used of 10, and 1 more"
    assert reminder.body.count("Still: ") == 2


def test_what_comes_soon_after_a_message_is_told_together(clock: Clockwork) -> None:
    clock.look(DEAD)
    others = [replace(DEAD, key=f"dead:{n}:ValueError") for n in range(3)]
    for other in others:  # each of them is found only once
        assert clock.look(other) is None
    (together,) = clock.looks(2 * GATHER_SECONDS)
    assert together.title.endswith(", and 2 more")


def test_what_has_happened_is_told_though_it_is_not_found_again(clock: Clockwork) -> None:
    """Nothing that has died is lost, whatever was told just before."""
    clock.looks(70, FULL)
    clock.look(DEAD)
    (told,) = clock.looks(GATHER_SECONDS)
    assert "events have died in the handler book" in told.title


def test_the_first_death_of_a_cause_is_told_and_the_next_ones_are_counted(clock: Clockwork) -> None:
    assert clock.look(DEAD)
    for _ in range(50):
        assert clock.look(replace(DEAD, times=2), after=100.0) is None
    assert clock.memory.alerts[DEAD.key].times == 101
    assert clock.look(after=80000.0) is None
    reminder, over = clock.looks(10000)
    assert reminder.title.startswith("Jobhook: still: ")
    assert "101 times" in over.body


def test_nothing_more_to_expect_is_over_at_once(clock: Clockwork) -> None:
    clock.look(DEAD)
    over = clock.look(after=GATHER_SECONDS, ended={"dead"})
    assert over
    assert over.level == "ok"
    assert clock.look(DEAD, after=GATHER_SECONDS)  # the next one is a first one


def test_what_becomes_worse_is_told_anew(clock: Clockwork) -> None:
    due = Finding("keys", "keys: 80 days old", "rotate", stage="due")
    clock.look(due)
    assert clock.looks(3600, due) == []
    (worse,) = clock.looks(3600, replace(due, text="keys: OVERDUE", stage="overdue"))
    assert worse.title == "Jobhook: keys: OVERDUE"


def test_what_could_not_be_looked_for_is_not_over(clock: Clockwork) -> None:
    """P9."""
    clock.looks(100, FULL)
    for _ in range(100):
        assert clock.look(is_complete=False) is None
    assert clock.memory.alerts["memory"].is_active


def test_what_is_remembered_and_told_is_bounded(clock: Clockwork) -> None:
    told = clock.look(*(Finding(f"a:{n}", f"wrong {n}", "mend it") for n in range(1000)))
    assert told
    assert len(clock.memory.alerts) == MOST_ALERTS
    assert told.body.count("To do:") == 20
    assert "And 80 more." in told.body
    for n in range(1000):
        clock.look(Finding(f"b:{n}", "wrong", "mend it"))
    assert len(clock.memory.alerts) == MOST_ALERTS


def test_a_failure_goes_before_a_warning(clock: Clockwork) -> None:
    fail = Finding("writes", "writes: no write has been taken", "wait", "fail")
    told = clock.look(replace(FULL, patience=0.0), fail)
    assert told
    assert (told.title, told.level) == ("Jobhook: writes: no write has been taken, and 1 more", "fail")


def test_a_clock_set_back_keeps_nothing_from_being_told(clock: Clockwork) -> None:
    clock.look(DEAD)
    assert clock.look(replace(DEAD, key="dead:other:ValueError"), after=-3600.0)


# --- what time shows


def counted(at: float, attempts: int = 0, failed: int = 0, deliveries: int = 0, refused: int = 0) -> Sample:
    return Sample(NOW + at, attempts, failed, deliveries, refused)


def keys(samples: list[Sample], now: Sample, percent: int = 25) -> list[str]:
    return [finding.key for finding in rates(samples, now, percent)]


def test_how_much_fails_is_told_of_the_last_quarter_of_an_hour() -> None:
    before = [counted(0, attempts=10_000, failed=9_000)]
    assert keys(before, counted(600, 10_000 + FEWEST_ATTEMPTS, 9_005)) == ["failures"]
    assert keys(before, counted(600, 10_000 + FEWEST_ATTEMPTS, 9_004)) == []
    assert keys(before, counted(600, 10_000 + FEWEST_ATTEMPTS - 1, 9_010)) == []
    assert keys(before, counted(600, 20_000, 19_000), 0) == []


def test_refused_signatures_are_told_when_they_are_many_among_deliveries() -> None:
    before = [counted(0)]
    assert keys(before, counted(600, deliveries=0, refused=FEWEST_REFUSED)) == ["refused"]
    assert keys(before, counted(600, deliveries=1000, refused=FEWEST_REFUSED)) == []
    assert keys(before, counted(600, deliveries=0, refused=FEWEST_REFUSED - 1)) == []


def test_samples_are_few_and_reach_as_far_back_as_the_window() -> None:
    samples: list[Sample] = []
    for n in range(1000):
        samples = remembered(samples, counted(n * 10.0, attempts=n))
        assert len(samples) <= WINDOW_SECONDS / 60 + 2
    newest = 9990.0
    assert WINDOW_SECONDS <= NOW + newest - samples[0].at <= WINDOW_SECONDS + 70


def test_counters_set_back_begin_anew() -> None:
    assert keys([counted(0, 1000, 1000)], counted(60, 30, 30)) == []
    assert remembered([counted(0, 1000, 1000)], counted(60, 30, 30)) == [counted(60, 30, 30)]


def test_silence_is_told_only_where_there_was_a_delivery() -> None:
    assert [finding.key for finding in silence(NOW - 86400, NOW, 86400)] == ["silence"]
    assert list(silence(None, NOW, 86400)) == list(silence(NOW, NOW, 86400)) == list(silence(1.0, NOW, 0)) == []


# --- what is to be sent


def test_a_message_is_for_each_destination_by_itself() -> None:
    """P5: who has taken it is not sent it again because another one has not."""
    made = outbox.post(Message("t", "b", "warn"), ["one", "two"], NOW)
    assert made.due(NOW) == ["one", "two"]
    half = outbox.Post.read(orjson.loads(orjson.dumps(made.taken("one").stored)))
    assert half.due(NOW) == ["two"]
    assert half.taken("two").left == {}


def test_who_does_not_take_it_is_asked_ever_less_often() -> None:
    made, now, waits = outbox.post(Message("t", "b", "warn"), ["one"], NOW), NOW, []
    for _ in range(8):
        made = made.failed("one", now)
        waits.append(made.left["one"][1] - now)
        now += waits[-1]
        assert made.due(now - 1) == []
        assert made.due(now) == ["one"]
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900]


def test_messages_that_are_too_old_or_too_many_are_given_up() -> None:
    posts = {f"post:{n}": outbox.post(Message("t", "b", "warn"), ["one"], NOW + n) for n in range(25)}
    assert sorted(outbox.given_up(posts, NOW + 30)) == [f"post:{n}" for n in range(5)]
    assert len(outbox.given_up(posts, NOW + 2 * outbox.GIVE_UP_SECONDS)) == 25


# --- the settings


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("json://a, mailto://b:c@d.com?to=x@y.com,z@y.com\nslack://e/f/g", 3),
        ("json://a\n", 1),
        ("json://a json://b", 2),
    ],
)
def test_urls_are_separated_by_commas_or_lines_and_may_hold_commas(text: str, urls: int) -> None:
    settings = make_settings("redis://127.0.0.1/0", alert_urls=text)
    assert len(settings.alert_urls) == urls
    assert all("://" in url.get_secret_value() for url in settings.alert_urls)


def test_a_destination_is_named_without_its_secrets() -> None:
    """P7."""
    settings = make_settings("redis://127.0.0.1/0", alert_urls="slack://canary-a/canary-b json://canary-c")
    assert [one.name for one in destinations(settings)] == ["slack #1", "json #2"]
    assert "canary" not in repr(settings) + repr(list(destinations(settings)))


def test_without_the_library_a_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """P10."""
    settings: Settings = make_settings("redis://127.0.0.1/0", alert_urls="json://a")
    monkeypatch.setattr("app.ops.messenger.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^JOBHOOK_ALERT_URLS: needs the package apprise: add it to .*$"):
        refuse_unusable(settings)
    refuse_unusable(make_settings("redis://127.0.0.1/0"))
