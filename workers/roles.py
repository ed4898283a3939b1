"""What the processes do that the supervisor forks: to look at the handlers once, or to work."""

import os
import signal
from time import monotonic

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import connect
from app.ops import logs, messenger
from workers import presence
from workers import worker as working
from workers.known import announce, show
from workers.loading import load
from workers.presence import Presence
from workers.processor import Processor
from workers.status import Status
from workers.stopping import Stop
from workers.worker import LEAVE_SECONDS, Worker


def check(settings: Settings, status: Status) -> None:
    """Imports the handlers, shows them, and ends.

    Raises:
        ConfigError: they cannot be imported, or something else that they need is not there.
    """
    try:
        registry = load(settings)
        messenger.refuse_unusable(settings)
    except ConfigError:
        status.has_told = True  # main() does, on the way out
        raise
    show(registry)
    announce(connect(settings), registry)
    status.is_ready = True
    status.kill_at = monotonic() + LEAVE_SECONDS  # threads begun by what it has imported may take their time


def work(settings: Settings, name: str, supervisor: int, status: Status) -> None:
    """Works under a name, for a supervisor with this process id, until it is stopped."""
    inbox = working.connect(settings)
    logs.take_prints()
    processor = Processor(inbox, load(settings), status)
    processor.follow_keys()
    stop = Stop()
    stop.listen()
    known = Presence(presence.entry(name, presence.client(settings)), settings.handler_timeout)
    Worker(name, inbox, processor, known, stop=stop, status=status, supervisor=supervisor).run()
    if os.getppid() != supervisor:
        os.killpg(0, signal.SIGKILL)  # nobody is left to end what handlers have started
