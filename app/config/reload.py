"""Keys that change while a process runs: taken over when their files change, without a restart.

Twice a second the files are looked at, not read: their times and sizes are enough, and a look goes through symlinks,
so that it sees what Kubernetes and Docker swap. What has changed is read once it has stood still from one look to
the next, and is used only if it has not changed meanwhile: a file that is being written is never taken half-way.

All sources are read by the same rules as at the start. If anything in them is wrong, the keys stay as they are and
`problem` says why. Only keys are taken over. All other settings stay those of the start, and `outdated` names those
that differ by now.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from app.config.files import NO_FILE
from app.config.keys import signing_keys
from app.config.names import is_known, variable
from app.config.settings import KEY_FIELDS, Settings
from app.config.sources import HERE, Sources, read_sources
from app.delivery.signature import Verifier
from app.errors import ConfigError

LOOK_SECONDS = 0.5
"""Between two looks at the files. A change is taken over at the second look after it."""

_Stamp = tuple[tuple[object, ...], ...]

log = structlog.stdlib.get_logger(__name__)


class Reloader:
    """The settings of one process, with the keys as they are now."""

    def __init__(self, settings: Settings, use: Callable[[Settings], None], *, tells: bool = True) -> None:
        """Begins with the settings of the start. `use` is called with others when keys have changed.

        If `use` raises a ConfigError, the keys stay as they are. With `tells` false all but that is logged
        for debugging only: by a process beside another one that looks at the same files and says what it sees.
        """
        self.settings = settings
        self.problem: str | None = None
        """Why the keys that are configured now are not in force; None if they are."""
        self.outdated: tuple[str, ...] = ()
        """Variables that are set to something else by now, which only a restart puts into force."""
        self._use = use
        self._tells = tells
        try:
            self._folder = Path.cwd()  # where relative names lead: handlers may change the current folder
        except OSError:  # it was deleted
            self._folder = HERE
        self._files: tuple[Path, ...] = ()
        self._seen: _Stamp = ()
        self._read: _Stamp | None = None
        self._notes: list[str] | None = None
        """Those of the start have been said by who started."""
        self._asked = False

    def ask(self) -> None:
        """Has the next look read the sources, changed or not, and say the result. Also for signal handlers."""
        self._asked = True

    def look(self) -> None:
        """Takes over what has changed since the last look but one."""
        asked, self._asked = self._asked, False
        stamp = _stamp(self._files)
        stands_still, self._seen = stamp == self._seen, stamp
        # What is wrong is tried again at every look: the cause may be in a file that nothing has led to yet.
        if asked or (stands_still and (stamp != self._read or self.problem)):
            self._read_anew(stamp, asked)

    def _read_anew(self, stamp: _Stamp, asked: bool) -> None:
        try:
            sources, problem = read_sources(self._folder), None
        except ConfigError as error:
            sources, problem = None, str(error)
        if _stamp(self._files) != stamp:  # it is being written: what was read may be half of it
            self._asked |= asked
            return
        if sources and sources.files != self._files:  # whether these stand still is not known yet
            self._files, self._seen = sources.files, ()
            self._asked |= asked
            return
        self._read = stamp
        self._take_over(sources, problem, asked)

    def _take_over(self, sources: Sources | None, problem: str | None, asked: bool) -> None:
        before = self.settings
        if sources:
            problem = self._adopt(sources.settings)
            self._compare(sources)
        if problem and (asked or problem != self.problem):
            # What is found only after reading may concern this process alone, such as a key that no header carries.
            self._say("error", "keys not reloaded: those in force stay", always=sources is not None, problem=problem)
        elif not problem and (asked or self.problem or self.settings is not before):
            current, *previous = (key.fingerprint for key in signing_keys(self.settings))
            what = "keys reloaded" if self.settings is not before else "keys read: as before"
            self._say("info", what, current=current, previous=previous)
        if sources and asked and (fixed := _fixed(sources)):
            self._say("info", "keys set in the environment change with a restart only", names=fixed)
        self.problem = problem

    def _adopt(self, now: Settings) -> str | None:
        """Makes the keys those of `now`. Returns why they cannot be used."""
        keys = {field: getattr(now, field) for field in KEY_FIELDS}
        if keys == {field: getattr(self.settings, field) for field in KEY_FIELDS}:
            return None
        settings = self.settings.model_copy(update=keys)
        try:
            Verifier(settings.signing_keys, settings.signature_scheme)
        except ValueError:
            return "they do not have the form that the signature settings of the start want: restart"
        try:
            self._use(settings)
        except ConfigError as error:
            return str(error)
        self.settings = settings
        return None

    def _compare(self, sources: Sources) -> None:
        outdated = tuple(
            variable(field)
            for field in Settings.model_fields
            if field not in KEY_FIELDS and getattr(sources.settings, field) != getattr(self.settings, field)
        )
        if outdated and outdated != self.outdated:
            self._say("warning", "settings changed: a restart puts them into force", names=outdated)
        self.outdated = outdated
        for note in sources.notes:
            if self._notes is not None and note not in self._notes:
                self._say("warning", "setting", note=note)
        self._notes = sources.notes

    def _say(
        self, level: Literal["info", "warning", "error"], what: str, *, always: bool = False, **more: object
    ) -> None:
        getattr(log, level if self._tells or always else "debug")(what, **more)


def _fixed(sources: Sources) -> list[str]:
    return sorted(sources.from_environment & {variable(field) for field in KEY_FIELDS})


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """What changes when a file does, or what it leads to; of a folder, of all files in it that may hold a setting."""
    found: list[tuple[object, ...]] = []
    for file in files:
        found.append(_stat(file))
        try:
            found += [_stat(one) for one in sorted(file.iterdir()) if is_known(one.name)]
        except OSError as error:  # it is no folder, or cannot be read
            found.append((file, error.errno))
    return tuple(found)


def _stat(file: Path) -> tuple[object, ...]:
    if file == NO_FILE:
        return (file,)
    try:
        seen = file.stat()
    except OSError as error:
        return (file, error.errno)
    return (file, seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size)
