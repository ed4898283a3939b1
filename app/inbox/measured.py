"""What workers measure of handlers: runs and their durations, the classes of errors, how long events wait.

Each worker adds it up and sends it along with an event, once a second; one that is killed takes that second along. It
is for metrics alone. What is kept is bounded: in each of the two hashes, names that come when it is full are counted
together, as `other`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from typing import Any, Final, NamedTuple

from redis import Redis

from app.inbox.scripts import PREFIX

RUNS, ERRORS = "runs", "errors"
MOST: Final = {RUNS: 2000, ERRORS: 100}
"""Fields of each hash. A handler has some ten: one for each outcome and class of duration that it has had."""
OTHER = "other"
OUTCOMES = ("finished", "failed", "given_up", "waited")
"""How a run of a handler ends: `failed` is tried again, `given_up` is not, `waited` has used up no attempt."""
RUN_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, inf)
WAIT_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, inf)
"""The upper ends of the classes of durations."""

_RUN, _TIME, _WAIT = "run", "time", "wait"
_WAITED = f"{_WAIT} time"


class Place(NamedTuple):
    """A counter: a field of a hash, and the one that takes its place when there are too many."""

    hash: str
    name: str
    other: str


_WAITED_TIME = Place(RUNS, _WAITED, _WAITED)
Counts = tuple[tuple[Place, int], ...]
"""Counters, and by how much each grows."""


def run(handler: str, outcome: str, seconds: float) -> Counts:
    """What a run of a handler is counted as."""
    which = bisect_left(RUN_SECONDS, seconds)
    return (_ran(handler, outcome, which), 1), (_time(handler), round(seconds * 1_000_000))


def waited(seconds: float) -> Counts:
    """The same for an event that has waited so long for its first attempt."""
    return (_waited(bisect_left(WAIT_SECONDS, seconds)), 1), (_WAITED_TIME, round(seconds * 1_000_000))


def failed(error: str) -> Counts:
    """The same for an error of this class, named with its module."""
    return ((Place(ERRORS, error, OTHER), 1),)


# They are on the way of every event, and few: names are put together once.
@lru_cache(maxsize=MOST[RUNS])
def _ran(handler: str, outcome: str, which: int) -> Place:
    return Place(RUNS, f"{_RUN} {outcome} {which} {handler}", f"{_RUN} {outcome} {which} {OTHER}")


@lru_cache(maxsize=MOST[RUNS])
def _time(handler: str) -> Place:
    return Place(RUNS, f"{_TIME} {handler}", f"{_TIME} {OTHER}")


@lru_cache
def _waited(which: int) -> Place:
    return Place(RUNS, f"{_WAIT} {which}", f"{_WAIT} {which}")


def arguments(counts: Mapping[Place, int]) -> dict[str, list[Any]]:
    """As the work script takes them: of each hash, how many fields it may have, then names, others and numbers."""
    given: dict[str, list[Any]] = {}
    for place, number in counts.items():
        given.setdefault(place.hash, [MOST[place.hash]]).extend((place.name, place.other, number))
    return given


@dataclass(slots=True)
class Series:
    """The runs of one handler, or all waits."""

    seconds: float = 0.0
    """Of all together."""
    classes: Counter[int] = field(default_factory=Counter)
    """How many were in each class of durations."""
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Measured:
    """All that workers have measured since ever."""

    handlers: dict[str, Series] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    waits: Series = field(default_factory=Series)
    is_full: dict[str, bool] = field(default_factory=dict)
    """Whether new names are counted as `other`, by hash."""


def measured(redis: "Redis") -> Measured:
    """What is kept.

    Raises:
        RedisError: the server cannot be asked.
    """
    with redis.pipeline(transaction=False) as pipeline:
        for name in MOST:
            pipeline.hgetall(f"{PREFIX}measured:{name}")
        hashes = dict(zip(MOST, pipeline.execute(), strict=True))
    found = Measured(is_full={name: len(hashes[name]) >= most for name, most in MOST.items()})
    for name, value in hashes[ERRORS].items():
        if value.isdigit():
            found.errors[name.decode("utf-8", "replace")] = int(value)
    for name, value in hashes[RUNS].items():
        if value.isdigit():
            _add(found, name.decode("utf-8", "replace"), int(value))
    return found


def _add(found: Measured, name: str, value: int) -> None:
    kind, _, rest = name.partition(" ")
    if kind == _RUN and rest.count(" ") > 1:
        outcome, which, handler = rest.split(" ", 2)
        series = found.handlers.setdefault(handler, Series())
        series.outcomes[outcome] += value
        series.classes[int(which) if which.isdecimal() else len(RUN_SECONDS)] += value
    elif name == _WAITED:
        found.waits.seconds += value / 1_000_000
    elif kind == _WAIT and rest.isdecimal():
        found.waits.classes[int(rest)] += value
    elif kind == _TIME:
        found.handlers.setdefault(rest, Series()).seconds += value / 1_000_000
