"""Applies one flaw after the other to a copy of the code and runs the tests that have to notice it.

The copy is of what git knows, so that nothing else gets in. A flaw is caught if a test fails; before the
first one, the same tests have to pass. Exit code 1 if a flaw was missed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from rich.console import Console

from tests.mutants.flaws import FLAWS, Flaw

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 600.0
"""For all tests of one flaw. A test that hangs has noticed something, too."""
OPTIONS = ("-q", "-x", "-n", "2", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk")
NO_END = "it does not end"

console = Console()


def main() -> int:
    """Runs all flaws, or those whose names contain one of the words given."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only flaws whose names contain one of these")
    words = parser.parse_args().words
    chosen = [flaw for flaw in FLAWS if not words or any(word in flaw.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="jobhook-mutants-") as name:
        folder = Path(name)
        copy(folder)
        if failed := run(folder, sorted({test for flaw in chosen for test in flaw.tests})):
            console.print(f"Without any flaw, a test fails: {failed}", style="red")
            return 1
        missed = [flaw for flaw in chosen if not try_out(folder, flaw)]
    console.print(f"{len(chosen) - len(missed)} of {len(chosen)} flaws caught.")
    return 1 if missed else 0


def copy(folder: Path) -> None:
    """All that git knows of, as it is in the working tree."""
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in known.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def try_out(folder: Path, flaw: Flaw) -> bool:
    """Whether the tests notice a flaw; says so."""
    files = {edit.file for edit in flaw.edits}
    sound = {file: (folder / file).read_text("utf-8") for file in files}
    begun = monotonic()
    try:
        for file, text in flawed(flaw, sound).items():
            (folder / file).write_text(text, "utf-8")
        noticed = run(folder, flaw.tests)
    finally:
        for file, text in sound.items():
            (folder / file).write_text(text, "utf-8")
    verdict = f"[green]caught[/] by {noticed}" if noticed else "[red bold]MISSED[/]"
    console.print(f"{flaw.promise}  {flaw.name}: {verdict}  [dim]({monotonic() - begun:.0f} s)[/]", soft_wrap=True)
    return bool(noticed)


def flawed(flaw: Flaw, sound: dict[str, str]) -> dict[str, str]:
    """The files with the flaw in them.

    Raises:
        ValueError: a text to be replaced is not there exactly once.
    """
    texts = dict(sound)
    for edit in flaw.edits:
        if texts[edit.file].count(edit.before) != 1:
            raise ValueError(f"{flaw.name!r}: not exactly once in {edit.file}: {edit.before!r}")
        texts[edit.file] = texts[edit.file].replace(edit.before, edit.after)
    return texts


def file_of(folder: Path, name: str) -> Path:
    """Where the tests of that name are, in whatever room.

    Raises:
        ValueError: there are none, or several.
    """
    (file,) = folder.glob(f"tests/*/test_{name}.py")
    return file


def run(folder: Path, tests: Iterable[str]) -> str | None:
    """The first test of these files that fails; None if all pass.

    Raises:
        RuntimeError: they could not be run, which proves nothing.
    """
    files = [str(file_of(folder, name).relative_to(folder)) for name in tests]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *files]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return NO_END
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if failed is None:
        raise RuntimeError(f"pytest itself has failed: {(done.stdout + done.stderr)[-500:]}")
    return failed[1]


if __name__ == "__main__":
    sys.exit(main())
