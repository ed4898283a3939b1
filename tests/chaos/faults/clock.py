"""The wall clock of Redis or of the receivers jumps by an hour, by libfaketime."""

import itertools
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from tests.chaos.fault import fault
from tests.chaos.ledger import Interruption
from tests.chaos.world import IGNORE_FILE_SIZE_SIGNAL, World

HOUR = 3600
PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")

_FOUND = next((str(file) for place in PLACES for file in Path("/").glob(place[1:])), None)
MISSING = None if _FOUND else "needs Debian's faketime"
EVENTS_BEFORE = 30


class FakeClock:
    """A file that says how far a process's clock is off."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = int(file.read_text()) if file.exists() else 0
        self.jump(0)

    def jump(self, seconds: int) -> None:
        self._offset += seconds
        self._file.write_text(f"{self._offset:+d}\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(_FOUND),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def _jump_redis(seconds: int) -> Callable[[World], float]:
    def strike(world: World) -> float:
        clock = FakeClock(world.stack.folder / "clock-redis")
        variables = itertools.starmap("{}={}".format, clock.environment.items())
        world.server.wrapper = ("env", *variables, *IGNORE_FILE_SIZE_SIGNAL)  # from now on: it would jump back
        world.server.stop()
        world.server.start()
        world.stream_on(EVENTS_BEFORE)
        clock.jump(seconds)
        # Forwards, every lease has run out; whoever is at work is overtaken, and fenced off.
        world.ledger.interruptions.append(Interruption("clock", monotonic(), monotonic(), None))
        return monotonic()

    return strike


def _jump_receivers(seconds: int) -> Callable[[World], float]:
    def strike(world: World) -> float:
        clock = FakeClock(world.stack.folder / "clock-receivers")
        world.restart_receivers(clock.environment)
        world.stream_on(EVENTS_BEFORE)
        clock.jump(seconds)
        return monotonic()

    return strike


for _sign, _seconds in (("+", HOUR), ("-", -HOUR)):
    fault(f"clock of Redis: {_sign}1 h", quick=False, seconds=8, missing=MISSING)(_jump_redis(_seconds))
    fault(f"clock of the receivers: {_sign}1 h", quick=False, seconds=5, missing=MISSING)(_jump_receivers(_seconds))
