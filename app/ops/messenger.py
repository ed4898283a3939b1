"""Sends alerts to the URLs of the settings, by the library apprise: mail, Slack, PagerDuty and a hundred more.

The library is imported when there is something to send or to check, and only then: it takes half a second. Its URLs
hold tokens. So a destination is named by its scheme and its place in the setting, nothing that the library or what it
stands on logs is let through, and of a failure no more is told than an HTTP status (P7).
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, NamedTuple

from app.config.keys import fingerprint
from app.config.settings import Settings
from app.errors import ConfigError
from app.ops.alerts import Message

VARIABLE = "JOBHOOK_ALERT_URLS"
LIBRARY = "apprise"

_TALKATIVE = (LIBRARY, "urllib3", "requests", "requests_oauthlib", "oauthlib", "charset_normalizer")
"""Loggers that quote URLs."""
_STATUS = re.compile(r"\berror=(\d{3})\b")
_REFUSED = "it was not taken, or nothing answered"


class Destination(NamedTuple):
    """One of the URLs, without the URL."""

    name: str
    """Such as `slack #2`: its scheme, and its place in the setting."""
    fingerprint: str


class Sent(NamedTuple):
    """What came of a message at a destination."""

    destination: Destination
    failure: str
    """Why it has not been taken, as far as that may be told; empty if it has."""


def destinations(settings: Settings) -> dict[Destination, str]:
    """All destinations, with their URLs."""
    urls = [url.get_secret_value() for url in settings.alert_urls]
    return {
        Destination(
            f"{url.partition(':')[0].lower()} #{place}", fingerprint(url.encode("utf-8", "surrogateescape"))
        ): url
        for place, url in enumerate(urls, 1)
    }


def is_installed() -> bool:
    """Whether there is the library here."""
    return find_spec(LIBRARY) is not None


def refuse_unusable(settings: Settings) -> None:
    """Stops a start with URLs that nothing could be sent to.

    Raises:
        ConfigError: the library is not installed, or does not understand a URL.
    """
    if not settings.alert_urls:
        return
    if not is_installed():
        raise ConfigError(
            f"{VARIABLE}: needs the package {LIBRARY}: add it to requirements-handlers.txt, then: make setup (or build "
            "the image anew)"
        )
    for destination, url in destinations(settings).items():
        if _service(url) is None:
            raise ConfigError(
                f"{VARIABLE}: {destination.name} is not understood: `apprise --details` lists what can be written"
            )


def send(pairs: Sequence[tuple[Destination, str, Message]], seconds: float) -> Iterator[tuple[int, Sent]]:
    """Sends messages to URLs, all at once, each in a thread of its own. Yields the place of each pair as it ends.

    What has not ended within the time is given up: nothing waits for a server that hangs.
    """
    ended: SimpleQueue[tuple[int, str]] = SimpleQueue()
    waiting = set(range(len(pairs)))
    deadline = monotonic() + seconds
    for place, (_, url, message) in enumerate(pairs):
        thread = threading.Thread(target=_send_one, args=(place, _service(url), message, ended), daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there can be no more threads now
            ended.put((place, "no thread could be started"))
    while waiting:
        try:
            place, failure = ended.get(timeout=max(0.0, deadline - monotonic()))
        except Empty:
            break
        waiting.discard(place)
        yield place, Sent(pairs[place][0], failure)
    for place in sorted(waiting):
        yield place, Sent(pairs[place][0], f"no answer within {seconds:g} s")


def _send_one(place: int, service: Any, message: Message, ended: "SimpleQueue[tuple[int, str]]") -> None:
    try:
        failure = _failure(service, message)
    except BaseException as error:  # noqa: BLE001 - of a plugin among a hundred
        failure = type(error).__name__
    ended.put((place, failure))


def _failure(service: Any, message: Message) -> str:
    """Why a message was not taken; empty if it was."""
    if service is None:
        return "its URL is not understood"
    import apprise  # noqa: PLC0415 - as above

    types = {"ok": apprise.NotifyType.SUCCESS, "warn": apprise.NotifyType.WARNING, "fail": apprise.NotifyType.FAILURE}
    # Not by the library's own `Apprise.notify`: its threads would keep a process from ending that one of them hangs in.
    taken = service.notify(
        body=message.body,
        title=message.title,
        notify_type=types[message.level],
        body_format=apprise.NotifyFormat.TEXT,
    )
    if taken:
        return ""
    return _statuses.of_this_thread() or _REFUSED


def _service(url: str) -> Any:
    """The library's object for a URL; None if it is not understood."""
    _silence()
    import apprise  # noqa: PLC0415 - as above

    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a hundred plugins that it loads at the first URL
        return apprise.Apprise.instantiate(url, suppress_exceptions=True)
    return None


class _Statuses(logging.Handler):
    """Hears what the library logs, and keeps of it which HTTP status it was, by thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if (status := _STATUS.search(record.getMessage())) and record.thread:
            self._found[record.thread] = f"HTTP {status[1]}"

    def of_this_thread(self) -> str:
        return self._found.get(threading.get_ident(), "")


_statuses = _Statuses()


def _silence() -> None:
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [_statuses] if name == LIBRARY else [logging.NullHandler()]
