"""`jobhook run`: one handler, once, on a file or on an event of the inbox, of which nothing is changed."""

import sys
import traceback
from pathlib import Path

from app.config.settings import Settings
from app.config.sources import load_settings
from app.errors import ConfigError
from app.inbox.inbox import Inbox, connect
from workers.alone import Memory, received
from workers.loading import load
from workers.registry import Handler, Registry
from workers.timelimit import time_limit

EXIT_FAILURE = 1


def main(handler: str, source: str, what: str) -> None:
    """Runs a handler; `source` says what `what` is: `--file` or `--event`. Exits with 1 if the handler fails.

    Raises:
        ConfigError: there is no such handler or file.
        EventNotFound: there is no such event.
    """
    settings = load_settings()
    chosen = _find(load(settings), handler)
    memory = _from_file(what, settings) if source == "--file" else _from_inbox(what, settings)
    record = memory.record
    _say(f"Runs {chosen.name} once on event {record.id} ({record.type}).")
    _say("Of this run nothing is recorded: no attempt, no steps. What it does to other systems is done.")
    if not chosen.pattern.match(record.type.casefold()):
        _say(f"In a worker it would not run: it wants {chosen.wants}.")
    if memory.has_finished(chosen.name):
        _say("In a worker it would not run: it has finished this event.")
    if before := memory.steps_of(chosen.name):
        _say(f"Steps that had finished before, and do not run again: {', '.join(before)}")
    try:
        with time_limit(settings.handler_timeout):
            memory.run(chosen)
    except BaseException:  # noqa: BLE001 - whatever it is, it is the handler's
        traceback.print_exc()
        _say("It has failed: see above.")
        sys.exit(EXIT_FAILURE)
    finally:
        for name, result in memory.steps_of(chosen.name).items():
            if name not in before:
                _say(f"Step {name}: {result!r}")
    _say("It has finished.")


def _find(registry: Registry, name: str) -> Handler:
    """By its name, or the last part of it."""
    exact = [handler for handler in registry.handlers if handler.name == name]
    found = exact or [handler for handler in registry.handlers if handler.name.rpartition(".")[2] == name]
    if len({handler.name for handler in found}) == 1:
        return found[0]
    names = ", ".join(sorted({handler.name for handler in found} or registry.names)) or "none"
    raise ConfigError(f"{'Several handlers are' if found else 'No handler is'} named {name}. There are: {names}")


def _from_file(name: str, settings: Settings) -> Memory:
    try:
        body = Path(name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}") from None
    return Memory(received(body, settings.envelope_paths), settings, lambda *_: 0.0)


def _from_inbox(id: str, settings: Settings) -> Memory:
    inbox = Inbox(connect(settings), settings)
    return Memory(inbox.get(inbox.find(id)), settings, inbox.latest)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - for the person at the desk
