"""Connections on which the receiver records, opened, examined and replaced apart from any delivery.

A `Line` is one connection and the plan for the server at its other end. Another connection may lead to another
server (after a failover, or by the name that an address stands for), so each has a plan of its own, and a
connection that is lost takes its plan with it.

One line more is kept than the plan has batches on their way at once. When a reply is overdue, its line is closed,
because the late reply would be taken for that to the next batch; the spare one takes its place.
"""

import asyncio
from collections.abc import Callable
from logging import ERROR, INFO
from math import ceil, inf

import structlog
from redis.exceptions import ResponseError

from app.errors import ConfigError, describe
from app.store.connections import pool_of_pipes
from app.store.durability import BATCHES, Durability, Plan, plan
from app.store.pipe import Command, Pipe
from app.store.pools import IDLE_SECONDS
from app.store.server import read_server

OPENING_SECONDS = 4.0
"""How long opening a line may take: five round trips (TCP, TLS, password, database, plan) to far away."""
PAUSE_SECONDS = (0.0, 0.0, 0.05, 0.1, 0.2, 0.5)
"""Before lines are opened, after none, one, two … failures in a row: a server in trouble gets few connections."""
PLAN_SECONDS = 10.0
"""The age at which a plan is made anew while its line is in use: the server may have been set otherwise."""
SPARE_LINES = 1
MOST_LINES = 20
LONGEST_WAIT_SECONDS = 0.05
"""How long a batch waits for a line, about: where a round trip takes longer, more of them are on their way at once."""
TOO_FAR = "move Redis nearer, or raise JOBHOOK_ACK_BUDGET"

log = structlog.stdlib.get_logger(__name__)


class Line:
    """One connection, and the plan for the server at its other end."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.plan = Plan()
        self.planned = self.heard = -inf
        """When the plan was made, and when the server has last replied, by the event loop's clock."""


class Lines:
    """The lines to one Redis. They are opened when the first is asked for, and kept up from then on."""

    def __init__(
        self,
        url: str,
        durability: Durability,
        budget: float,
        *,
        script: str,
        version_key: str,
        verify: Callable[[bytes | None], None],
        on_ready: Callable[[], None],
        on_failure: Callable[[], None],
    ) -> None:
        """Lines on which a batch may take `budget` seconds.

        `script` is loaded into the server beforehand. `verify` gets what is stored under `version_key` along
        with every plan, and raises a ConfigError if this process must not write there. `on_ready` is called
        when there is a line to take, `on_failure` when there was none and opening one has failed.
        """
        self._durability: Durability = durability
        self._budget = budget
        self._load: Command = ("SCRIPT", "LOAD", script)
        self._read_version: Command = ("MGET", version_key)  # no error whatever is there
        self._verify = verify
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._pool = pool_of_pipes(url, connect_timeout=OPENING_SECONDS)
        self._all: set[Line] = set()
        self._idle: list[Line] = []
        """The one heard of last at the end."""
        self._taken: set[Line] = set()
        self._parallel = BATCHES
        self._round_trip = inf
        self._failed_batches = self._failed_openings = 0
        """In a row."""
        self._problem: dict[str, str] = {}
        self._opener: asyncio.Task[None] | None = None
        self._examiner: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    async def start(self) -> None:
        """Opens the lines, and returns when all are open, or when opening one has failed."""
        self._replenish()
        await self._tried.wait()

    def take(self) -> Line | None:
        """A line for one batch after the other; None if there is none, or as many are taken as may be."""
        if not self._idle or len(self._taken) >= self._parallel:
            if not self._all:
                self._replenish()
            return None
        line = self._idle.pop()
        if line.heard < asyncio.get_running_loop().time() - 2 * IDLE_SECONDS:
            # They should have been examined by now: this process has stood still. None is trusted any more.
            self._close(line, *self._idle)
            return None
        self._taken.add(line)
        return line

    def put_back(self, line: Line) -> None:
        """Returns a line for which there is no batch any more."""
        self._taken.discard(line)
        self._idle.append(line)

    async def has_recorded(self, line: Line) -> bool:
        """Tells of a batch that was recorded. Whether the line can be used on: if its plan is old, it is made anew."""
        self._failed_batches = 0
        is_old = line.planned < asyncio.get_running_loop().time() - PLAN_SECONDS
        return not is_old or await self._examine_again(line)

    def give_up(self, line: Line, *, alone: bool) -> None:
        """Replaces a line on which a batch has failed; see `_distrust`."""
        self._failed_batches += 1
        self._distrust(line, alone=alone)

    def _distrust(self, line: Line, *, alone: bool) -> None:
        """Closes a line, and unless it is `alone` in its trouble, the others that are not taken, too.

        Those that are taken make their plans anew after the batch that is on its way.
        """
        self._close(line, *(() if alone else self._idle))
        if not alone:
            for other in self._taken:
                other.planned = -inf

    async def close(self) -> None:
        """Closes every line."""
        tasks = [task for task in (self._opener, self._examiner) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in self._all:
            line.pipe.close()
        await self._pool.aclose()

    def _close(self, *lines: Line) -> None:
        for line in lines:
            line.pipe.close()
            self._all.discard(line)
            self._taken.discard(line)
        self._idle = [line for line in self._idle if line not in lines]
        if not self._all:
            self._round_trip = inf  # the next server may be nearer, or further away
        self._replenish()

    def _replenish(self) -> None:
        if len(self._all) < self._wanted and self._opener is None:
            self._opener = asyncio.create_task(self._open_missing())
        if self._examiner is None:
            self._examiner = asyncio.create_task(self._examine_idle())

    @property
    def _wanted(self) -> int:
        return self._parallel + SPARE_LINES

    async def _open_missing(self) -> None:
        while (missing := self._wanted - len(self._all)) > 0:
            failures = max(self._failed_batches, self._failed_openings)
            await asyncio.sleep(PAUSE_SECONDS[min(failures, len(PAUSE_SECONDS) - 1)])
            if self._all:
                await asyncio.gather(*(self._open() for _ in range(missing)))
            elif not await self._open():  # begun without a line: one that was under way may have failed with the last
                self._on_failure()
            if self._failed_openings:
                self._tried.set()
        self._tried.set()
        self._opener = None

    async def _open(self) -> bool:
        line = Line(Pipe(self._pool))
        self._all.add(line)
        problem = await self._examine(line, OPENING_SECONDS)
        if problem != self._problem:
            log.log(ERROR if problem else INFO, "Redis cannot be used" if problem else "Redis can be used", **problem)
            self._problem = problem
        if problem:
            self._failed_openings += 1
            return False
        self._failed_openings = 0
        self._offer(line)
        return True

    async def _examine_idle(self) -> None:
        """Asks lines that nobody has used for a while, so that one that was forgotten on the way is found in time."""
        loop = asyncio.get_running_loop()
        while True:
            horizon = loop.time() - IDLE_SECONDS
            due = [line for line in self._idle if line.heard <= horizon][: ceil(len(self._idle) / 2)]  # not all at once
            if due:
                self._idle = [line for line in self._idle if line not in due]
                await asyncio.gather(*map(self._examine_one, due))
            else:
                await asyncio.sleep(min((line.heard - horizon for line in self._idle), default=IDLE_SECONDS))

    async def _examine_one(self, line: Line) -> None:
        if await self._examine_again(line):
            self._failed_batches = 0
            self._offer(line)

    async def _examine_again(self, line: Line) -> bool:
        if problem := await self._examine(line, self._budget):
            log.warning("a connection to Redis is replaced", **problem)
        return not problem

    def _offer(self, line: Line) -> None:
        self._idle.append(line)
        self._on_ready()

    async def _examine(self, line: Line, seconds: float) -> dict[str, str]:
        """Connects if need be, and makes the plan. What is wrong, in the log's words: then the line is closed."""
        is_new = line.heard == -inf
        try:
            async with asyncio.timeout(seconds):
                if is_new:
                    await line.pipe.connect()
                took = await self._make_plan(line, *([self._load] if is_new else []))
                if took > self._budget:  # far away, or it has stood still, and that is over
                    took = await self._make_plan(line)
        except ConfigError as error:
            self._distrust(line, alone=False)
            return {"remedy": str(error)}
        except Exception as error:  # noqa: BLE001 - whatever it is, another line may do
            self._distrust(line, alone=is_new or isinstance(error, TimeoutError))
            return describe(error)
        if took > self._budget:
            self._distrust(line, alone=True)
            return {"remedy": TOO_FAR, "round_trip": f"{took:.1f} s"}
        self._round_trip = min(self._round_trip, took)
        self._parallel = min(MOST_LINES, max(line.plan.parallel, ceil(self._round_trip / LONGEST_WAIT_SECONDS)))
        return {}

    async def _make_plan(self, line: Line, *more: Command) -> float:
        """Asks the server, in one round trip, for what the plan depends on. How many seconds that took.

        Raises:
            ConfigError: the server cannot do what is configured, or this process must not write there.
        """
        loop = asyncio.get_running_loop()
        asked = loop.time()
        found, (version, *_) = await read_server(line.pipe, self._read_version, *more)
        line.planned = line.heard = loop.time()
        line.plan = plan(self._durability, found, self._budget)
        if line.plan.shortfall:
            raise ConfigError(line.plan.shortfall)
        if not isinstance(version, ResponseError):
            self._verify(*version)
        return line.heard - asked
