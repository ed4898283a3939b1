"""The inbox: the record of every event and of what has to be done with it, kept in Redis.

What changes an event's state is a script in `app/inbox/scripts/`; this module calls them and reads records.
It is synchronous, for workers, command line and health checks; the receiver's one hot call, `accept`,
has an asyncio caller of its own in `app/receiver/intake.py`.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Literal, cast

import orjson
from redis import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from app.config.settings import Settings
from app.delivery.identity import ID_LENGTH
from app.errors import DamagedRecord, EventNotFound
from app.inbox import jobs, measured, paused, scripts
from app.inbox.measured import Place
from app.inbox.record import STATES, STEP, Assignment, Delivery, Ended, Record, State, Stats, Sweep, errors_of
from app.inbox.scripts import Script
from app.store import connections

PREFIX = scripts.PREFIX

LEASE_MARGIN_SECONDS = 10
"""How much longer a lease is than the handler timeout: the time to end a handler and to say so."""
SWEEP_INTERVAL_MS = 900
"""Just under the second at which each supervisor asks, so that one asking alone is never refused."""
SWEEP_PATIENCE_MS = 5000
"""How long a stock RQ worker may hold a popped job before it begins."""
SWEEP_MOST = 1000
"""Events of each kind per sweep: about 20 ms of the server's time."""
SWEEP_SLICE = 250
"""Unfinished events that one sweep looks through for lost ones: 2 ms. Of 100,000, each has its turn in 7 minutes."""
SWEEP_ROUND_MS = 4
"""Of the server's time in one sweep, to make findable what an earlier release has recorded (`app/inbox/search.py`). A
million events take about an hour."""
LONGEST_TURN_WAIT_MS = 60_000
"""After which an event that waits for its turn looks for itself."""
STEP_RETRY_SECONDS = 0.2
SILENT_REMEMBERED_SECONDS = 3600
"""How long a supervisor that is silent is missed. After that it is taken for gone on purpose."""
SOCKET_TIMEOUT_SECONDS = 5.0


def connect(settings: Settings, retries: int = 1) -> "Redis":
    """A client for everything but the hot path. A command fails after `SOCKET_TIMEOUT_SECONDS`.

    One retry makes up for a connection that a restarted server has left behind.
    """
    return connections.connect(settings.redis_url, timeout=SOCKET_TIMEOUT_SECONDS, retries=retries)


def accept_arguments(settings: Settings, deliveries: Sequence[Delivery]) -> list[bytes | str | int]:
    """The arguments of the accept script."""
    arguments: list[bytes | str | int] = [
        *(jobs.job(settings.handler_timeout), int(settings.dedupe_window), int(settings.retention), settings.same_id)
    ]
    for delivery in deliveries:
        arguments += (*delivery.identity, delivery.meta, delivery.body)
    return arguments


def _ended(ended: Ended) -> dict[str, Any]:
    """The end of an attempt as the work script takes it."""
    told: dict[str, Any] = {
        "id": ended.id,
        "token": str(ended.token),
        "outcome": ended.outcome,
        "delay": int(ended.delay * 1000),
        "attempt": ended.attempt.decode(),
        "fields": [part for field in ended.fields.items() for part in field],
        "uncounted": ended.uncounted,
        "unhandled": ended.unhandled,
        "errors": _classes(ended),
    }
    if ended.handled:
        resource, handlers = ended.handled.resource, ended.handled.handlers
        told["handled"] = {"resource": resource, "occurred": str(ended.handled.occurred), "handlers": handlers}
    return told


def _classes(ended: Ended) -> list[str]:
    """The classes of the errors in an attempt; those of a mere wait leave no trace in the record."""
    if ended.outcome == "done" or ended.uncounted:
        return []
    return sorted({error["type"] for error in errors_of(orjson.loads(ended.attempt))})


class Inbox:
    """All that is done with recorded events. Redis errors pass through to the caller."""

    def __init__(self, redis: "Redis", settings: Settings) -> None:
        self.redis = redis
        self.settings = settings

    def _run(self, script: Script, *arguments: Any) -> Any:
        try:
            return self.redis.evalsha(script.sha, 0, *arguments)
        except NoScriptError:
            return self.redis.eval(script.text, 0, *arguments)

    @property
    def _job(self) -> bytes:
        return jobs.job(self.settings.handler_timeout)

    @property
    def _lease(self) -> float:
        return self.settings.handler_timeout + LEASE_MARGIN_SECONDS

    @property
    def _retention(self) -> int:
        return int(self.settings.retention)

    def work(
        self, worker: str, ended: Ended | None = None, want: str = "next", counts: Mapping[Place, int] | None = None
    ) -> Assignment:
        """Ends the attempt in hand, if there is one, and takes the next, in one round trip.

        `want` is "next", the id of one event, or "" to take nothing. `counts` is what the worker has measured.
        """
        leased_until = time.monotonic() + self._lease  # counted from before it was asked for
        given = {"worker": worker, "lease": int(self._lease * 1000), "retention": self._retention, "want": want}
        if ended:
            given["ended"] = _ended(ended)
        if counts:
            given["counted"] = measured.arguments(counts)
        code, taken, held = self._run(scripts.WORK, orjson.dumps(given))
        recorded = None if code < 0 else bool(code)
        if taken == b"suspended":
            return Assignment(recorded, None, suspended=True)
        if not taken:
            return Assignment(recorded, None)
        left = {
            what.decode("utf-8", "replace"): ms / 1000 or inf for what, ms in zip(held[::2], held[1::2], strict=True)
        }
        id, flat = taken
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            return Assignment(recorded, Record.from_hash(id.decode(), fields, leased_until), paused=left)
        except DamagedRecord as damaged:
            self._run(scripts.SET_ASIDE, id)
            return Assignment(recorded, None, damaged=damaged)

    def wait(self, seconds: int) -> None:
        """Waits until there may be an event to take, at most so long. Of all who wait, one is woken per event."""
        self.redis.blpop([f"{PREFIX}wake"], seconds)

    def record_step(self, id: str, token: int, step: str, result: bytes) -> bool:
        """Records a finished step; False if the attempt is no longer the current one.

        While Redis is away or refuses writes (a full disk, say) it is tried again, because the step has
        happened; the handler timeout ends that.
        """
        while True:
            try:
                return self.try_to_record_step(id, token, step, result)
            except RedisError:
                time.sleep(STEP_RETRY_SECONDS)

    def try_to_record_step(self, id: str, token: int, step: str, result: bytes) -> bool:
        """The same, once."""
        return bool(self._run(scripts.STEP, id, token, STEP + step, result))

    def note_handler(self, id: str, token: int, handler: str) -> None:
        """Notes in which handler a running event is, for people. Without effect if the attempt has ended."""
        self._run(scripts.STEP, id, token, "handling", orjson.dumps([token, handler]))

    def take_turn(self, id: str, token: int, resource: str) -> bool:
        """Makes it a running event's turn for its resource; False if it now waits in line, given back."""
        return bool(self._run(scripts.TURN, id, token, resource, LONGEST_TURN_WAIT_MS))

    def latest(self, resource: str, handler: str, now: float) -> float:
        """When the newest event of a resource that a handler has finished occurred, in seconds since 1970.

        0 if none is known. `now` is the time by the server's clock.
        """
        with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.zscore(f"{PREFIX}handled:{resource}", handler)
            # Version 0.1 kept one key a resource, whoever had handled the event; it expires after the retention.
            # What it has of events dated in the future is of no use.
            pipeline.get(f"{PREFIX}latest:{resource}")
            handled, before = pipeline.execute()
        done = float(before or 0)
        return max(float(handled or 0), done if done <= now else 0.0)

    def sweep(self) -> Sweep | None:
        """Puts everything due, expired or lost back in line; None if somebody has just done so."""
        found = self._run(
            scripts.SWEEP,
            *(self._job, SWEEP_INTERVAL_MS, SWEEP_PATIENCE_MS, SWEEP_MOST),
            *(self.settings.max_attempts, self._retention, int(self._lease * 1000), SWEEP_SLICE),
            SWEEP_ROUND_MS,
        )
        if not found:
            return None
        due, expired, lost, trimmed, mended, broken, misfits = found
        set_aside, renamed = (tuple(name.decode() for name in names) for names in (broken, misfits))
        return Sweep(due, expired, lost, trimmed, mended, set_aside, renamed)

    def release(self, worker: str, reason: str, *, counts: bool = True) -> list[str]:
        """Ends the attempts of a worker known to be dead. Returns the ids of their events.

        With `counts` false they do not use up an attempt: no handler has run in them.
        """
        limits = (self.settings.max_attempts, self._retention)
        ids = self._run(scripts.RELEASE, worker, reason, *limits, "1" if counts else "")
        return [id.decode() for id in ids]

    def beat(self, supervisor: str, gone: Iterable[str] = ()) -> None:
        """Notes that a supervisor is at work, and forgets those that are known to be gone."""
        self._run(scripts.BEAT, supervisor, SILENT_REMEMBERED_SECONDS, *gone)

    def leave(self, supervisor: str) -> None:
        """Forgets a supervisor that stops in good order."""
        self.redis.zrem(PREFIX + "supervisors", supervisor)

    def replay(self, ids: Sequence[str]) -> dict[str, State | None]:
        """Puts events back to work; those queued or running are left alone.

        Returns the state each was in, None where there is no record.
        """
        states = self._run(scripts.REPLAY, self._job, int(self.settings.dedupe_window), *ids)
        return {id: cast(State, state.decode()) or None for id, state in zip(ids, states, strict=True)}

    def empty(self, how: Literal["discard", "erase"], metas: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Takes out of events what they say, for good; given what stays of the meta of each (app/inbox/erasure.py).

        Returns the state each was in, empty where there is no record. Running ones are left alone.
        """
        given = [part for id, meta in metas for part in (id, meta)]
        limits = (int(self.settings.dedupe_window), self._retention)
        states = self._run(scripts.EMPTY, self._job, *limits, how, *given)
        return {id: state.decode() for (id, _), state in zip(metas, states, strict=True)}

    def get(self, id: str) -> Record:
        """The record of an event.

        Raises:
            EventNotFound: there is none.
            DamagedRecord: it cannot be read.
        """
        try:
            raw = cast(dict[bytes, bytes], self.redis.hgetall(f"{PREFIX}event:{id}"))
        except ResponseError:
            raise DamagedRecord(f"The record of event {id} cannot be read: its key is not a hash.") from None
        if not raw:
            raise EventNotFound(f"There is no record of event {id}: never received, or past its retention.")
        return Record.from_hash(id, raw)

    def find(self, prefix: str) -> str:
        """The full id of the event that a person means by its first digits.

        Raises:
            EventNotFound: none or several begin with them.
        """
        if len(prefix) == ID_LENGTH:
            return prefix
        matches: set[str] = {
            id.decode()
            for state in (*STATES, "broken")
            for id, _ in self.redis.zscan_iter(PREFIX + state, match=prefix + "*", count=1000)
        }
        if not matches:
            raise EventNotFound(f"No event begins with {prefix!r}.")
        if len(matches) > 1:
            raise EventNotFound(f"{len(matches)} events begin with {prefix!r}: give more of the id.")
        return min(matches)

    def newest(self, states: Iterable[str] = STATES, page: int = 50) -> Iterator[Record]:
        """Events from the most recently active back, lazily, read `page` at a time.

        What cannot be read is left out: the sweep sets it aside, and `broken` has it.
        """
        for ids in self._pages(list(states), page):
            with self.redis.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(f"{PREFIX}event:{id.decode()}")
                records = pipeline.execute(raise_on_error=False)
            yield from sorted(readable(ids, records), key=lambda record: record.received, reverse=True)

    def broken(self) -> list[str]:
        """The ids of events that were set aside, because their record is gone or cannot be read; newest first."""
        ids = cast(list[bytes], self.redis.zrange(f"{PREFIX}broken", 0, -1, desc=True))
        return [id.decode() for id in ids]

    def _pages(self, states: list[str], page: int) -> Iterator[list[bytes]]:
        start = 0
        while True:
            with self.redis.pipeline(transaction=False) as pipeline:
                for state in states:
                    pipeline.zrange(PREFIX + state, start, start + page - 1, desc=True, withscores=True)
                merged = sorted((entry for zset in pipeline.execute() for entry in zset), key=lambda entry: -entry[1])
            if not merged:
                return
            yield [id for id, _ in merged]
            start += page

    def stats(self) -> Stats:
        """The inbox in numbers; the cost does not depend on how much is stored."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for state in STATES:
                pipeline.zcard(PREFIX + state)
            pipeline.zrange(PREFIX + "open", 0, 0, withscores=True)
            pipeline.hgetall(PREFIX + "counts")
            pipeline.get(PREFIX + "swept")
            pipeline.zrange(PREFIX + "supervisors", 0, -1, withscores=True)
            pipeline.exists(f"{jobs.RQ_PREFIX}:suspended")
            pipeline.hgetall(paused.KEY)
            pipeline.time()
            *sizes, oldest, counts, swept, beats, suspended, held, (seconds, microseconds) = pipeline.execute()
        now = seconds + microseconds / 1e6
        return Stats(
            states=dict(zip(STATES, sizes, strict=True)),
            oldest_open_seconds=max(0.0, now - oldest[0][1] / 1000) if oldest else 0.0,
            counts={name.decode(): int(value) for name, value in counts.items()},
            swept_seconds_ago=max(0.0, now - int(swept) / 1000) if swept else None,
            supervisors={name.decode("utf-8", "replace"): max(0.0, now - beat / 1000) for name, beat in beats},
            suspended=bool(suspended),
            paused=paused.read(held, now),
        )


def readable(ids: Iterable[bytes], records: Iterable[Any]) -> Iterator[Record]:
    """The records in replies to HGETALL. What cannot be read is left out: the sweep sets it aside."""
    for id, raw in zip(ids, records, strict=True):
        if isinstance(raw, RedisError) and not isinstance(raw, ResponseError):
            raise raw
        if raw and isinstance(raw, dict):
            with suppress(DamagedRecord):
                yield Record.from_hash(id.decode(), raw)
