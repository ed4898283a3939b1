"""The process that looks for alerts, which the supervisor starts when it is its turn: nothing waits for it."""

import signal
from functools import partial
from time import monotonic

import structlog
from redis import Redis
from redis.exceptions import RedisError

from app.config.settings import Settings
from app.errors import describe
from app.inbox import alerts
from app.inbox.alerts import Turn
from app.ops import watch
from workers.child import Child, fork
from workers.status import Status

log = structlog.stdlib.get_logger(__name__)


class Lookout:
    """One supervisor's part in looking for alerts."""

    def __init__(self, settings: Settings, redis: "Redis") -> None:
        self.settings = settings
        """For the next look."""
        self._redis = redis
        self._ask_at = 0.0
        self._turn: Turn | None = None
        """The right to look, for the process that is to be started."""
        self._looking: Child | None = None

    def take_turn(self) -> None:
        """Asks whether it is our turn, of all supervisors that there are.

        Raises:
            RedisError: the server cannot be asked.
        """
        if self.settings.alert_urls and not self._looking and monotonic() >= self._ask_at:
            self._ask_at = monotonic() + watch.LOOK_SECONDS
            self._turn = alerts.begin(self._redis, watch.LOOK_SECONDS, watch.TURN_SECONDS)

    def tick(self) -> None:
        """Starts the process if it is our turn, and sees to its end, however it ends.

        Raises:
            Forked: in that process.
            OSError: there cannot be another process now; the turn is lost.
        """
        if self._looking:
            if self._looking.overdue:
                self._looking.kill()
            if (reason := self._looking.reap()) is None:
                return
            self._looking = None
            if reason != "exit code 0":
                log.error("alerts: a look has not ended well, the next one goes on", reason=reason)
        turn, self._turn = self._turn, None
        if turn:
            self._looking = fork("alerts", partial(_look, self.settings, turn))

    def end(self) -> None:
        """Ends the process. What it has not sent, the next look sends."""
        if self._looking:
            self._looking.kill()


def _look(settings: Settings, turn: Turn, status: Status) -> None:
    """Looks for alerts once. The kernel ends it in time, though its supervisor may be gone or frozen by then."""
    left = turn.until - watch.ENDS_BEFORE_SECONDS - monotonic()
    signal.setitimer(signal.ITIMER_REAL, max(left, watch.SHORTEST_LOOK_SECONDS))
    status.is_ready = True
    status.kill_at = turn.until
    try:
        watch.look(settings, turn)
    except RedisError as error:
        log.warning("alerts: redis does not do its part", **describe(error))
