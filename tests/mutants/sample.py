"""A random sample of broken programs, each with the tests that mirror the broken file.

What the tests do not notice is either a hole in them, or not wrong at all (another order of two independent
steps, a number that only says how soon): a person has to tell.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from tests.mutants.sites import Site, lua_sites, python_sites

ROOMS: dict[str, tuple[str, ...]] = {
    "app/inbox/scripts/": ("inbox", "intake", "order", "steps", "schema", "model", "worker"),
    "app/inbox/": ("inbox", "jobs", "schema", "cli"),
    "app/inbox/scripts/keys.lua": ("key_use",),
    "app/inbox/keys.py": ("key_use",),
    "app/delivery/": ("endpoint",),
    "app/delivery/diagnosis/": ("diagnosis", "providers"),
    "app/store/": ("lines", "intake", "health", "failover"),
    "app/config/": ("config", "cli"),
    "app/ops/": ("end_to_end",),
    "app/ops/keys.py": ("key_use", "rotation"),
    "app/ops/problems.py": ("health", "readiness", "explain"),
    "app/receiver/": ("endpoint", "forms", "paths", "protocol", "http", "fuzz", "end_to_end"),
    "workers/jobsiteon/": ("jobsiteon_client", "jobsiteon_cache", "jobsiteon_limits", "jobsiteon_paging"),
    "workers/forward/": ("forward",),
    "workers/": ("processor", "order", "steps", "worker", "end_to_end"),
}
"""The tests of a room, after those named like the module; the longest beginning of a path counts."""
LEFT_OUT = ("app/cli/", "app/simulator/", "workers/handlers/")
"""What only talks to people, or stands in for JobsiteOn."""


@dataclass(frozen=True)
class Mutant:
    """A file, broken in one place."""

    file: str
    site: Site
    tests: tuple[str, ...]


def draw(root: Path, number: int, seed: int) -> list[Mutant]:
    """So many different mutants, the same for the same seed and code."""
    every = [(file, site) for file in _files(root) for site in _sites((root / file).read_bytes(), file)]
    Random(seed).shuffle(every)  # noqa: S311 - a sample, no secret
    readable = ((file, site) for file, site in every if _is_code(site.applied((root / file).read_bytes()), file))
    return [Mutant(file, site, mirrored(root, file)) for file, site in islice(readable, number)]


def mirrored(root: Path, file: str) -> tuple[str, ...]:
    """The names of the test files that have to notice a flaw in a file, the nearest first."""
    room = max((room for room in ROOMS if file.startswith(room)), key=len, default="")
    names = dict.fromkeys((Path(file).stem, *ROOMS.get(room, ("end_to_end",))))
    return tuple(name for name in names if any(root.glob(f"tests/*/test_{name}.py")))


def _files(root: Path) -> Iterator[str]:
    for room in ("app", "workers"):
        for path in sorted((root / room).rglob("*")):
            file = path.relative_to(root).as_posix()
            if path.suffix in {".py", ".lua"} and not file.startswith(LEFT_OUT):
                yield file


def _sites(source: bytes, file: str) -> Iterator[Site]:
    return lua_sites(source) if file.endswith(".lua") else python_sites(source)


def _is_code(text: bytes, file: str) -> bool:
    """Whether it can be read at all: what cannot is noticed by any test, which proves nothing."""
    if file.endswith(".lua"):
        return True
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
