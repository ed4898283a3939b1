"""Finds the events that a filter means, the newest first, a few milliseconds of the server at a time.

Of several sorted sets that hold all that can fit, the smallest is gone through: those of a type, a resource or a class
of error (by time received), or those of the states (by what those are sorted by: when it ended, is due, was queued).
A script looks at as many events as its time allows and leaves out what cannot fit; `Filter.fits` decides about the
rest. So receivers never wait for long, however much is stored, and an answer says how far it has looked.

While events are stored that a process of an earlier release has recorded, and that the sweep has not yet come to,
only the sets of the states hold all.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, NamedTuple

import orjson
from redis import Redis
from redis.exceptions import NoScriptError, ResponseError

from app.delivery.envelope import subject
from app.inbox.filter import BadFilter, Filter, fits_error, fits_type, spellings
from app.inbox.inbox import readable
from app.inbox.record import OPEN_STATES, STATES, Record
from app.inbox.scripts import FIND, PREFIX

OF: Final = f"{PREFIX}of"
LATE: Final = f"{OF}:late"
CALL_MS: Final = 4.0
"""Of the server's time in one call: for so long receivers wait meanwhile."""
CALL_LOOKED: Final = 20_000
"""Events looked at in one call, should they cost next to nothing."""
PAGE: Final = 50
"""Events of which the records are read together."""
_PLACE: Final = re.compile(r"([ts]):(-?[0-9.e+]{1,25}):([0-9a-z]{0,64})")
_ENDED: Final = ("done", "dead")
_COUNTED: Final = ("deliveries:accepted", "deliveries:conflict", "attempts:retry", "attempts:dead", "attempts:crashed")


class Place(NamedTuple):
    """Where a search has stopped, and goes on from."""

    by_time: bool
    """Whether it goes by time received; else by the states."""
    score: float
    id: str

    def __str__(self) -> str:
        return f"{'t' if self.by_time else 's'}:{self.score!r}:{self.id}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """From its text.

        Raises:
            ValueError: it is none.
        """
        found = _PLACE.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is no place where a search has stopped")
        return cls(found[1] == "t", float(found[2]), found[3])


@dataclass(frozen=True, slots=True)
class Page:
    """What was found, the newest first."""

    records: list[Record]
    looked: int
    """Events looked at for it."""
    back_to: float | None
    """The time down to which all has been looked at, in seconds since 1970; None: nothing has."""
    place: Place | None
    """Where to go on; None: that was all."""


class Search:
    """One search. Redis errors pass through to the caller."""

    def __init__(self, redis: "Redis", filter: Filter, place: Place | None = None) -> None:
        """It begins with the newest, or where another one has stopped.

        Raises:
            BadFilter: its times leave nothing between them.
        """
        self._redis = redis
        self.filter = filter
        self.looked = 0
        self.back_to: float | None = None
        self.place = place
        self.is_over = False
        seconds, microseconds = redis.time()
        self.now = seconds + microseconds / 1e6
        self._since, self._until = filter.between(self.now)
        if self._until is not None and self._until <= self._since:
            raise BadFilter("until", "is not after since, so that nothing can be between them")
        self._sources, self._by_time = self._choose(place)
        self._texts: list[bytes] = []
        self._asked = self._question()

    def page(self, most: int = PAGE, most_looked: int | None = None) -> Page:
        """The next ones found, and how far it has looked for them: at most so many events in this call."""
        records: list[Record] = []
        before = self.looked
        while not self.is_over and len(records) < most:
            left = None if most_looked is None else most_looked - (self.looked - before)
            if left is not None and left <= 0:
                break
            records += self._step(most - len(records), left)
        return Page(records, self.looked - before, self.back_to, None if self.is_over else self.place)

    def __iter__(self) -> Iterator[Record]:
        while not self.is_over:
            yield from self._step(PAGE)

    def count(self) -> dict[tuple[str, str], int]:
        """How many there are of each state and type. (Only for `can_be_counted`.)"""
        counted: dict[tuple[str, str], int] = {}
        while not self.is_over:
            flat = self._call(CALL_LOOKED, tally=True)
            for name, number in zip(flat[::2], flat[1::2], strict=True):
                state, _, type = name.decode("utf-8", "replace").partition(" ")
                counted[state, type] = counted.get((state, type), 0) + int(number)
        return counted

    def _step(self, most: int, most_looked: int | None = None) -> list[Record]:
        """The records found by one call of the script."""
        ids = self._call(most, most_looked)
        if not ids:
            return []
        with self._redis.pipeline(transaction=False) as pipeline:
            for id in ids:
                pipeline.hgetall(f"{PREFIX}event:{id.decode()}")
            raws = pipeline.execute(raise_on_error=False)
        return [record for record in readable(ids, raws) if self.filter.fits(record, self.now)]

    def _call(self, most: int, most_looked: int | None = None, *, tally: bool = False) -> list[Any]:
        asked = self._asked | {"most": most, "most_looked": min(most_looked or CALL_LOOKED, CALL_LOOKED)}
        if self.place:
            asked["before"] = [self.place.score, self.place.id]
        if tally:
            asked["tally"] = True
        arguments = (orjson.dumps(asked), *self._texts)
        try:
            reply: Any = self._redis.evalsha(FIND.sha, 0, *arguments)
        except NoScriptError:
            reply = self._redis.eval(FIND.text, 0, *arguments)
        found, looked, score, id, is_all = reply
        self.looked += looked
        self.is_over = bool(is_all)
        if id:
            self.place = Place(self._by_time, float(score), id.decode())
            if self._goes_back:
                self.back_to = self.place.score / 1000
        return list(found)

    def _choose(self, place: Place | None) -> tuple[list[str], bool]:
        """The sorted sets to go through, and whether they are by time received."""
        by_states = self._of_states()
        if place and not place.by_time:
            return by_states, False
        try:
            groups, hold_all = self._of_what_they_are()
            smallest, size = min(((keys, self._size(keys)) for keys in groups), key=lambda one: one[1])
        except ResponseError:  # one of them is of another type, put there by hand: the sweep sees to that
            return by_states, False
        if place:
            return [*smallest, LATE], True
        # A list is read by time received, and can begin at any; so going by the states has to be worth it.
        are_few = self.filter.state and self._until is None and self._size(by_states) < size / 2
        if not hold_all or are_few:
            return by_states, False
        if self._until is not None:
            self.place = Place(True, float(ceil(self._until * 1000)), "")
        return [*smallest, LATE], True

    def _of_states(self) -> list[str]:
        states = self.filter.state or ("open", *_ENDED)
        if set(OPEN_STATES) <= set(states):
            states = ("open", *(state for state in states if state in _ENDED))
        return [PREFIX + state for state in states]

    def _of_what_they_are(self) -> tuple[list[list[str]], bool]:
        """Groups of sorted sets, each of which holds all that can fit; and whether that is so of all that is stored.

        Raises:
            ResponseError: what is there is of another type.
        """
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(OF, "filled", "indexed")
            pipeline.hmget(f"{PREFIX}counts", *_COUNTED)
            for what in ("type", "error"):
                pipeline.zrange(f"{OF}:{what}s", 0, -1)
            (filled, indexed), counted, types, errors = pipeline.execute()
        hold_all = filled is not None and int(filled) == sum(int(n or 0) for n in counted) - int(indexed or 0)
        asked = self.filter
        names = [name.decode("utf-8", "replace") for name in types]
        groups = [_rows("type", [name for name in names if asked.type is None or fits_type(asked.type, name)])]
        if asked.error is not None:
            classes = (name.decode("utf-8", "replace") for name in errors)
            groups.append(_rows("error", [name for name in classes if fits_error(asked.error, name)]))
        if asked.resource is not None:
            groups.append([f"{OF}:resource:{name}" for name in _resources(asked.resource, names)])
        return groups, hold_all

    def _size(self, keys: list[str]) -> int:
        with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.zcard(key)
            return sum(pipeline.execute())

    def _question(self) -> dict[str, Any]:
        """What the script is asked, but for where to begin and when to stop."""
        asked = self.filter
        anywhere = [text for text in (asked.search, asked.handler, _literal(asked.error)) if text]
        groups = [spellings(text) for text in anywhere] + ([[b'"handlers":0']] if asked.unhandled else [])
        meta = [_resource_in_meta(asked.resource)] if asked.resource else []
        meta += [[b'"key":' + orjson.dumps(asked.key), b'"fingerprint":"' + asked.key.encode()]] if asked.key else []
        question: dict[str, Any] = {
            "sources": self._sources,
            "since": int(self._since * 1000),
            "states": ["done"] if asked.unhandled and not asked.state else list(asked.state or STATES),
            "conflict": asked.conflict,
            "types": [_lua_pattern(asked.type)] if asked.type else [],
            "meta": [self._numbered(group) for group in meta],
            "anywhere": [self._numbered(group) for group in groups],
            "ms": CALL_MS,
        }
        if self._goes_back:
            question["lowest"] = int(self._since * 1000)
        if self._until is not None:
            question["until"] = ceil(self._until * 1000)
        return question

    @property
    def _goes_back(self) -> bool:
        """Whether it goes back in time: what it has come to was not received later than the last it has looked at."""
        return self._by_time or set(self._sources) <= {PREFIX + name for name in ("open", *_ENDED)}

    def _numbered(self, group: list[bytes]) -> list[int]:
        first = len(self._texts) + 1
        self._texts += group
        return list(range(first, first + len(group)))


def can_be_counted(filter: Filter) -> bool:
    """Whether the script alone decides what fits, so that no record need be read."""
    return not any((filter.search, filter.handler, filter.error, filter.key, filter.resource, filter.unhandled))


def _rows(what: str, names: list[str]) -> list[str]:
    """The sorted sets of these; with the one that those share for which there was no room."""
    return [f"{OF}:{what}:{name}" for name in (*names, "")]


def _resources(asked: str, types: list[str]) -> list[str]:
    """The full names that a resource may have; a bare id is one of any subject."""
    return [asked] + [f"{name}/{asked}" for name in sorted({subject(type) for type in types})]


def _resource_in_meta(asked: str) -> list[bytes]:
    names = {asked, asked.partition("/")[2] or asked}
    return [b'"resource":' + orjson.dumps(name) for name in sorted(names)]


def _literal(pattern: str | None) -> str | None:
    """The longest part of a pattern that stands for itself."""
    return max(re.split(r"[*?]|\[.*?\]|\[", pattern), key=len) if pattern else None


def _lua_pattern(glob: str) -> str:
    """A pattern of Lua that whatever fits the glob fits too. Types are given to it in lower case."""
    parts = re.findall(r"\*+|\?|\[.[^\]]*\]|.", glob.casefold(), re.DOTALL)
    return "^" + "".join(map(_part_in_lua, parts)) + "$"


def _part_in_lua(part: str) -> str:
    if part[0] == "*":
        return ".*"
    return "." if part == "?" or part[0] == "[" else re.sub(r"(\W)", r"%\1", part)
