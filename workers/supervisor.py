"""The supervisor: keeps N workers running, and sweeps the inbox every second.

A worker that dies is replaced, and its event released at once: the supervisor has seen it die, so nobody has to
wait for the lease. A worker that is stuck past its time is killed.

Whatever goes wrong in a tick is said and tried again with the next one. What cannot go on ends its workers and
itself, so that whoever has started it can start it anew: it is never there without doing its work.
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from uuid import uuid4

import structlog
from redis.exceptions import ConnectionError as RedisAway
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from app.config.reload import LOOK_SECONDS, Reloader
from app.config.settings import Settings
from app.config.sources import load_settings, notes
from app.errors import ConfigError, describe
from app.inbox.heartbeat import Heartbeat
from app.inbox.inbox import LEASE_MARGIN_SECONDS, Inbox, connect
from app.ops import hangup, logs, systemd
from app.ops.health import refuse_to_start
from app.ops.pulse import Pulse
from app.ops.rounds import Rounds
from app.store import connections
from workers import presence, roles
from workers.child import Child, Forked, fork
from workers.lookout import Lookout
from workers.stopping import Stop

TICK_SECONDS = 1.0
ANSWER_SECONDS = 1.0
"""How long Redis may keep a tick from going on."""
LONGEST_PAUSE_SECONDS = 30.0
"""Between the starts of workers that die before they are ready; it begins with a tick and doubles."""
TIDY_SECONDS = 600.0
"""How often RQ's registries are cleaned of what stock workers have left; RQ's own interval."""
EXIT_FAILURE, EXIT_CONFIG = 1, 2

log = structlog.stdlib.get_logger(__name__)


class Supervisor:
    """Runs until it gets a SIGTERM or SIGINT; then it lets the workers finish what they have in hand."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inbox = Inbox(connections.connect(settings.redis_url, timeout=ANSWER_SECONDS, retries=0), settings)
        self._heartbeat = Heartbeat(self._inbox)
        self._children: list[Child] = []
        self._ended: dict[str, tuple[str, bool]] = {}
        """Workers that are to be released: why, and whether that uses up an attempt of the event."""
        self._stop = Stop()
        self._stopping_since: float | None = None
        self._not_before = 0.0
        self._pause = 0.0
        self._tidy_at = 0.0
        self._lookout = Lookout(settings, self._inbox.redis)
        self._pulse: Pulse | None = None
        self._reloader = Reloader(settings, self._use)
        # In a thread, because a manager of secrets may keep it waiting, and the sweep has to go on.
        self._keys = Rounds("keys", LOOK_SECONDS, self._reloader.look)

    def run(self) -> None:
        """Supervises until stopped.

        Raises:
            Forked: in every process that it has started.
            ConfigError: the handlers cannot be imported.
        """
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._wake.settimeout(TICK_SECONDS)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)  # any signal ends the wait below
        self._stop.listen()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if not hangup.is_of_a_terminal():
            # Forked processes keep this handler, and a SIGHUP for all does not end them. They look for themselves.
            signal.signal(signal.SIGHUP, lambda *_: self._ask_for_keys())
        # What the workers share with the supervisor is not to be copied because a garbage collector looked at it.
        gc.collect()
        gc.freeze()
        self._begin_pulse()
        try:
            self._check_handlers()
            self._keys.start()
            log.info("supervisor started", workers=self._settings.workers, pid=os.getpid())
            systemd.notify("READY=1")
            while self._tick():
                self._wait()
            self._keys.close()
            self._heartbeat.leave()
            log.info("supervisor stopped")
        except Forked:
            self._leave_to_parent()
            raise
        except BaseException:
            for child in self._children:
                child.kill()
            self._lookout.end()
            self._end_pulse()
            raise
        self._lookout.end()
        self._end_pulse()

    def _ask_for_keys(self) -> None:
        self._reloader.ask()
        self._keys.wake()

    def _use(self, settings: Settings) -> None:
        """The keys for processes that are forked from now on. Those that run look for themselves."""
        self._settings = self._lookout.settings = settings

    def _wait(self) -> None:
        with suppress(TimeoutError):
            self._wake.recv(64)
        self._beat()

    def _beat(self) -> None:
        if self._pulse:
            self._pulse.beat()
        systemd.watchdog()

    def _begin_pulse(self) -> None:
        try:
            self._pulse = Pulse(self._settings.redis_url)
        except OSError as error:
            log.warning("`jobhook alive` will not see this supervisor", reason=str(error))

    def _end_pulse(self) -> None:
        if self._pulse:
            self._pulse.end()

    def _leave_to_parent(self) -> None:
        """In a forked process: gives up what is the supervisor's."""
        self._wake.close()
        self._waker.close()
        if self._pulse:
            self._pulse.leave_to_parent()

    def _check_handlers(self) -> None:
        """Imports the handlers in a process that is thrown away. One that cannot be imported stops the start.

        It stops no later start: while a file is being edited, the workers that run go on.
        """
        while not self._stop.asked and not self._try(self._begin_check):
            self._wait()
        for checker in list(self._children):
            while (reason := checker.reap()) is None:
                if self._stop.asked or checker.overdue:
                    checker.kill()
                self._wait()
            self._children.remove(checker)
            if checker.status.has_told:
                sys.exit(EXIT_CONFIG)
            if not checker.status.is_ready and not self._stop.asked:
                names = ", ".join(self._settings.handlers)
                raise ConfigError(f"JOBHOOK_HANDLERS: a process that was to import {names} ended with {reason}.")

    def _begin_check(self) -> None:
        self._children.append(fork("check", partial(roles.check, self._settings)))

    def _tick(self) -> bool:
        """Does all that there is to do; whether there will be more."""
        self._try(self._reap)
        self._try(self._pass_on_stops)
        self._try(self._kill_overdue)
        if self._stop.asked and self._stopping_since is None:
            log.info("supervisor stopping: workers finish what they have in hand")
            systemd.notify("STOPPING=1")
            self._stopping_since = monotonic()
        if self._stopping_since is None:
            self._try(self._spawn)
        elif not self._children and not self._ended:
            return False
        healed = self._try(self._heal)
        if self._stopping_since is None:
            self._try(self._lookout.tick)
        # What could not be released waits for its lease.
        return healed or self._stopping_since is None or bool(self._children)

    def _try(self, duty: Callable[[], None]) -> bool:
        """Whether a duty has been done. If not, whatever the reason, that is said, and the next tick tries again."""
        try:
            duty()
        except (RedisAway, RedisTimeout) as error:
            log.warning("redis does not answer", **describe(error))
        except RedisError as error:
            log.error("redis answers with an error", says=str(error).split(" ", 1)[0], **describe(error))
        except Exception as error:  # noqa: BLE001 - the supervisor must not end, nor hang, for one thing
            reason = {"reason": error.strerror} if isinstance(error, OSError) and error.strerror else {}
            log.error("supervisor in trouble", duty=duty.__name__.strip("_"), **reason, **describe(error))
        else:
            return True
        return False

    def _spawn(self) -> None:
        if monotonic() < self._not_before:
            return
        while len(self._children) < self._settings.workers and not self._stop.asked:
            name = f"{socket.gethostname()}-{uuid4().hex[:12]}"
            try:
                child = fork(name, partial(roles.work, self._settings, name, os.getpid()))
            except Exception:
                self._put_off()
                raise
            self._children.append(child)

    def _put_off(self) -> None:
        """Makes the pause before the next start of a worker longer."""
        self._pause = min(max(2 * self._pause, TICK_SECONDS), LONGEST_PAUSE_SECONDS)
        self._not_before = monotonic() + self._pause

    def _reap(self) -> None:
        for child in list(self._children):
            reason = child.reap()
            if reason is None:
                continue
            self._children.remove(child)
            self._ended[child.name] = (f"The worker died ({reason}).", child.status.has_event)
            if self._stopping_since is not None:
                continue
            if reason == "exit code 0" and child.status.is_ready and not child.status.has_event:
                log.info("worker ended", worker=child.name)
            else:
                log.warning("worker died", worker=child.name, reason=reason)
            if child.status.is_ready:
                self._pause = self._not_before = 0.0
            else:
                self._put_off()

    def _kill_overdue(self) -> None:
        grace = self._settings.handler_timeout + LEASE_MARGIN_SECONDS
        stopping_too_long = self._stopping_since is not None and monotonic() > self._stopping_since + grace
        for child in self._children:
            if why := child.overdue or ("it did not end its handler" if stopping_too_long else ""):
                what = f"worker killed: {why}"
                log.error(what, worker=child.name)
                child.kill()

    def _pass_on_stops(self) -> None:
        """The first stop is passed on to each worker; on the second they are ended at once."""
        for child in self._children:
            if self._stop.asked > 1:
                child.kill()
            elif self._stop.asked and not child.was_stopped:
                child.was_stopped = True
                child.terminate()

    def _heal(self) -> None:
        """All that needs Redis. A stop does not wait for it."""
        stopping = self._stopping_since is not None
        act = self._ask_redis
        try:
            act() if stopping else self._stop.unless_stopped(act)
        except RedisError:
            # After a failover, the connections may still lead to the server that was the primary.
            self._inbox.redis.connection_pool.disconnect()
            raise
        if self._stop.asked and not stopping:
            self._inbox.redis.connection_pool.disconnect()  # it may have been cut between a command and its reply

    def _note_handlers(self) -> None:
        """Records in which handler a running event is, of those that have been in it since the last tick."""
        for child in self._children:
            at, before = child.status.at, child.seen
            child.seen = at
            if at and at == before and at != child.noted:
                self._inbox.note_handler(*at)
                child.noted = at

    def _ask_redis(self) -> None:
        for name, (reason, counts) in list(self._ended.items()):
            self._inbox.release(name, reason, counts=counts)
            presence.unregister(name, self._inbox.redis)
            del self._ended[name]
        if swept := self._inbox.sweep():
            if swept.expired or swept.lost or swept.mended:
                log.warning("sweep healed", expired=swept.expired, lost=swept.lost, mended=swept.mended)
            for id in swept.broken:
                log.error("event set aside: its record is gone or cannot be read", id=id)
            for key in swept.misfits:
                log.error("key of a wrong type renamed, and its content put together again", key=key)
        self._heartbeat.beat()
        self._note_handlers()
        self._lookout.take_turn()
        if monotonic() >= self._tidy_at:
            self._tidy_at = monotonic() + TIDY_SECONDS
            presence.entry("supervisor", self._inbox.redis).clean_registries()  # type: ignore[no-untyped-call]


def main() -> None:
    """Runs a supervisor with the settings of the environment.

    Raises:
        ConfigError: the settings, the handlers or the Redis they name cannot be used.
    """
    settings = load_settings()
    logs.configure(settings)
    logs.warn(notes())
    hangup.ignore_until_ready()
    with connect(settings) as redis:
        refuse_to_start(settings, redis)
    try:
        Supervisor(settings).run()
    except Forked as forked:
        work = forked.work
    except (ConfigError, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told without its message (P7)
        log.critical("supervisor cannot go on: its workers are ended", **describe(error))
        sys.exit(EXIT_FAILURE)
    else:
        return
    try:
        work()
    except (ConfigError, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the same
        log.critical("worker cannot go on", **describe(error))
        sys.exit(EXIT_FAILURE)
