"""A look for what is to be told: from Redis to findings, from findings to messages, from messages to their takers.

Of many supervisors one looks at a time (app/inbox/alerts.py). What is to be sent is kept before anything is sent, and
what has been taken is noted as soon as it has: should this process be killed in between, the next look goes on.
So a message is sent at least once, and twice only if the process ends between a taker's answer and the note of it.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from shlex import quote
from socket import gethostname
from time import monotonic
from typing import Any

import orjson
import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.config.settings import Settings
from app.inbox import alerts as inbox
from app.inbox import keys as inbox_keys
from app.inbox.alerts import Turn
from app.inbox.dead import Died, died_since
from app.inbox.inbox import PREFIX, Inbox
from app.inbox.paused import EVERYTHING
from app.inbox.record import Stats
from app.ops import health, messenger, outbox, trends
from app.ops.alerts import Finding, Memory, Message, advance, at, known_fields, read_json
from app.ops.messenger import Destination
from app.ops.outbox import Post
from app.ops.problems import UNSEEN, UNSENT_ALERTS, Check
from app.ops.trends import Sample
from app.store import connections
from app.units import format_duration

LOOK_SECONDS = 10.0
"""Between two looks, of all supervisors together."""
TURN_SECONDS = 30.0
"""How long a look may take, with all that it sends. Then it is another one's turn."""
ENDS_BEFORE_SECONDS = 3.0
"""How long before the end of its turn a process that looks is ended at the latest, wherever it is."""
SEND_SECONDS, FEWEST_SEND_SECONDS = 15.0, 5.0
"""How long the takers of messages may take; with less time than this left, sending is the next look's."""
SHORTEST_LOOK_SECONDS = 0.001
"""For a process that has begun too late: it is ended at once."""
MOST_SENT = 40
"""Messages sent at once, counted for each taker."""
COMMAND_SECONDS = 1.5
ALONE_SECONDS = 30.0
"""How long no supervisor has swept when a receiver begins to look in their place."""
FAIL_PATIENCE_SECONDS = 60.0
"""How long something has to last that keeps deliveries from being recorded."""
DEAD_QUIET_SECONDS = 86400.0
"""For how long no more events have to die of a cause until that is over."""
MOST_CAUSES = 20
"""Causes of death that one look tells apart."""

DEAD = "dead"
"""What the keys of findings about dead events begin with."""
MEMORY, POST, TAKER = "memory", "post:", "taker:"
"""The names of the fields in Redis: what is remembered, each message that waits, and each destination."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Taker:
    """What is known of a destination. Times are the server's, in seconds since 1970."""

    name: str
    sent: float | None = None
    """When it last took a message."""
    failing_since: float | None = None
    """Since when it takes none; None if it does."""
    why: str = ""


@dataclass(slots=True)
class Kept:
    """What is kept from one look to the next."""

    memory: Memory = field(default_factory=Memory)
    samples: list[Sample] = field(default_factory=list)
    cursor: int = 0
    """Up to when dead events have been looked at, in ms."""
    posts: dict[str, Post] = field(default_factory=dict)
    """Messages that wait, by the name of their field."""
    takers: dict[str, Taker] = field(default_factory=dict)
    """By fingerprint."""

    @property
    def remembered(self) -> bytes:
        """The value of the field `memory`."""
        return orjson.dumps(
            self.memory.stored | {"cursor": self.cursor, "samples": [list(one) for one in self.samples]}
        )


def read(redis: "Redis") -> Kept:
    """What is kept. What cannot be read counts as not there.

    Raises:
        RedisError: the server cannot be asked.
    """
    kept = Kept()
    for name, value in inbox.kept(redis).items():
        with suppress(ValueError, TypeError, LookupError, AttributeError):  # a person's hand, or another version
            if name == MEMORY:
                stored = read_json(value)
                kept.cursor = int(stored["cursor"])  # first: without it, all that is dead would be told again
                kept.memory = Memory.read(stored)
                kept.samples = [Sample(*one) for one in stored["samples"]]
            elif name.startswith(POST):
                kept.posts[name] = Post.read(read_json(value))
            elif name.startswith(TAKER):
                kept.takers[name.removeprefix(TAKER)] = Taker(**known_fields(Taker, read_json(value)))
    return kept


def look(settings: Settings, turn: Turn) -> None:
    """Looks once, and sends what there is to send. For a process that may be killed at any time.

    Raises:
        RedisError: the server does not do its part.
    """
    with connections.connect(settings.redis_url, timeout=COMMAND_SECONDS, retries=0) as redis:
        kept = read(redis)
        now, message = _find(settings, redis, kept)
        urls = messenger.destinations(settings)
        if _keep_what_is_new(redis, turn, kept, now, message, [taker.fingerprint for taker in urls]):
            _send(redis, turn, kept, urls, now)
            inbox.keep(redis, turn, {}, ends=True)


def look_instead(settings: Settings, redis: "Redis") -> None:
    """Looks in the place of the supervisors, if none of them has swept for a while: for receivers, in a thread.

    Raises:
        RedisError: the server does not do its part.
    """
    swept: Any = redis.get(f"{PREFIX}swept")
    seconds, _ = redis.time()
    if swept and abs(int(seconds) - int(swept) / 1000) < ALONE_SECONDS:
        return
    if turn := inbox.begin(redis, LOOK_SECONDS, TURN_SECONDS):
        look(settings, turn)


def check(settings: Settings, redis: "Redis") -> Iterator[Check]:
    """Whether alerts reach those who are to be told, for `jobhook doctor`."""
    if not settings.alert_urls:
        return
    try:
        kept = read(redis)
    except RedisError:  # other findings say so
        return
    failing = [taker for taker in kept.takers.values() if taker.failing_since is not None]
    for taker in failing:
        yield UNSENT_ALERTS.found(destination=taker.name, since=at(taker.failing_since or 0.0), why=taker.why)
    if not failing:
        active = sum(alert.is_active for alert in kept.memory.alerts.values())
        yield Check("alerts", "ok", f"{len(settings.alert_urls)} destinations, {active} alerts now: `jobhook alerts`")


def _keep_what_is_new(
    redis: "Redis", turn: Turn, kept: Kept, now: float, message: Message | None, takers: list[str]
) -> bool:
    """Keeps what this look has found, before anything is sent. Whether it was still our turn."""
    if message:
        name = f"{POST}{round(now * 1000)}"
        kept.posts[name] = outbox.post(message, takers, now)
        log.warning("alert", title=message.title, severity=message.level)
    changes: dict[str, bytes | str] = {name: orjson.dumps(post.stored) for name, post in kept.posts.items()}
    given_up = outbox.given_up(kept.posts, now)
    for name in given_up:
        log.error("alert given up: not all have taken it", title=kept.posts.pop(name).title)
        changes[name] = ""
    changes |= {TAKER + gone: "" for gone in kept.takers.keys() - set(takers)}
    changes[MEMORY] = kept.remembered
    is_kept = inbox.keep(redis, turn, changes, {"alerts:given_up": len(given_up)})
    if not is_kept:
        log.warning("alerts: the turn was over before anything was sent")
    return is_kept


def _send(redis: "Redis", turn: Turn, kept: Kept, urls: dict[Destination, str], now: float) -> None:
    """Sends what is due, and notes of each taker at once whether it has taken it."""
    seconds = min(SEND_SECONDS, turn.until - ENDS_BEFORE_SECONDS - monotonic())
    known = {taker.fingerprint: taker for taker in urls}
    due = [(name, known[taker]) for name, post in kept.posts.items() for taker in post.due(now) if taker in known]
    if not due or seconds < FEWEST_SEND_SECONDS:
        return
    pairs = [(taker, urls[taker], kept.posts[name].message) for name, taker in due[:MOST_SENT]]
    for place, sent in messenger.send(pairs, seconds):
        name, taker = due[place]
        before = kept.takers.get(taker.fingerprint, Taker(taker.name))
        if sent.failure:
            log.error("alert not sent", to=taker.name, why=sent.failure)
            post = kept.posts[name].failed(taker.fingerprint, now)
            since = now if before.failing_since is None else before.failing_since
            after = Taker(taker.name, before.sent, since, sent.failure)
        else:
            log.info("alert sent", to=taker.name, title=kept.posts[name].title)
            post = kept.posts[name].taken(taker.fingerprint)
            after = Taker(taker.name, now)
        kept.posts[name], kept.takers[taker.fingerprint] = post, after
        fields = {
            name: orjson.dumps(post.stored) if post.left else "",
            TAKER + taker.fingerprint: orjson.dumps(asdict(after)),
        }
        inbox.keep(redis, turn, fields, {f"alerts:{'failed' if sent.failure else 'sent'}": 1})


def _find(settings: Settings, redis: "Redis", kept: Kept) -> tuple[float, Message | None]:
    """The server's time, and what there is to tell. What is remembered is brought up to date."""
    checks = health.check(settings, redis)
    stats = Inbox(redis, settings).stats()
    memory = inbox_keys.known(redis)
    now = memory.now
    died = died_since(redis, kept.cursor, now)
    taken = trends.sample(now, stats.counts)
    last = max((key.last for key in memory.keys.values() if key.last), default=None)
    findings = [
        *_problems(checks),
        *_pauses(settings, stats, now),
        *_backlog(settings, redis, stats, now),
        *trends.rates(kept.samples, taken, settings.alert_failures),
        *trends.silence(last, now, settings.alert_silence),
        *_deaths(died, kept.memory),
    ]
    kept.cursor, kept.samples = died.until, trends.remembered(kept.samples, taken)
    kept.memory, message = advance(
        kept.memory,
        findings,
        now,
        is_complete=not any(check.level == "fail" or check.problem == UNSEEN for check in checks),
        ended={DEAD} if not died.left else set(),
        teller=gethostname(),
    )
    return now, message


def _problems(checks: Iterable[Check]) -> Iterator[Finding]:
    for one in checks:
        problem = one.problem
        if problem is None or one.level == "ok":
            continue
        patience = problem.patience
        if patience is None and one.level == "fail":
            patience = FAIL_PATIENCE_SECONDS
        if patience is not None:
            key = f"{one.name}:{one.subject}" if one.subject else one.name
            yield Finding(
                key, f"{one.name}: {one.finding}", one.remedy or "", one.level, patience, stage=problem.finding
            )


def _pauses(settings: Settings, stats: Stats, now: float) -> Iterator[Finding]:
    """Pauses that nobody has ended, and that do not end by themselves."""
    longest = settings.alert_pauses
    if not longest:
        return
    if stats.suspended:
        yield Finding(
            "suspended",
            f"`rq suspend` is on for {format_duration(longest)} or longer: events are recorded but not processed",
            "run `rq resume` when they may be",
            patience=longest,
        )
    for one in stats.paused:
        if one.until is None and now - one.since >= longest:
            what = "everything" if one.what == EVERYTHING else one.what
            yield Finding(
                f"paused:{one.what}",
                f"paused since {at(one.since)} by {one.by}: {what}",
                f"run `jobhook resume {quote(one.what)}` when it may go on",
            )


def _backlog(settings: Settings, redis: "Redis", stats: Stats, now: float) -> Iterator[Finding]:
    """Whether events wait in line that could be worked on. (One that is tried again ends by its age.)"""
    is_held = stats.suspended or any(one.what == EVERYTHING for one in stats.paused)
    if not settings.alert_backlog or is_held:
        return
    first: Any = redis.zrange(f"{PREFIX}queued", 0, 0, withscores=True)
    if first and now - first[0][1] / 1000 >= settings.alert_backlog:
        yield Finding(
            "backlog",
            f"events wait in line since {at(first[0][1] / 1000)}: {stats.states['queued']} in all",
            "see `jobhook doctor`; if the workers are well, start more of them (JOBHOOK_WORKERS)",
        )


def _deaths(died: Died, memory: Memory) -> Iterator[Finding]:
    """One for each cause. Of those that are too many to tell apart, only how many events have died."""
    room = MOST_CAUSES - sum(key.startswith(f"{DEAD}:") for key in memory.alerts)
    others = died.unread
    for cause, deaths in sorted(died.groups.items(), key=lambda group: -group[1].number):
        key = f"{DEAD}:{cause.handler}:{cause.error}"
        if key not in memory.alerts:
            room -= 1
            if room < 0:
                others += deaths.number
                continue
        who = f"in the handler {cause.handler}" if cause.handler else "with their worker"
        yield Finding(
            key,
            f"events have died {who}, of {cause.error}: the last one is {deaths.last} of type {deaths.type}",
            f"see why: `jobhook event {deaths.last[:12]}`; then put them back to work: `jobhook replay`",
            quiet=DEAD_QUIET_SECONDS,
            times=deaths.number,
        )
    if others:
        yield Finding(
            f"{DEAD}::",
            "other events have died, of too many causes to tell apart: see `jobhook events --state dead`",
            "put them back to work, once they can be: `jobhook replay`",
            quiet=DEAD_QUIET_SECONDS,
            times=others,
        )
