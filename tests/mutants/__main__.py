"""Breaks a copy of the code, in one place after the other, and runs the tests that have to notice.

Without options these are the known flaws, each of which breaks a promise; exit code 1 if one is missed. With
`--sample N` they are N places at random, and what is missed is listed for a person to judge. The copy is of what
git knows, so that nothing else gets in; before the first flaw, the same tests have to pass.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from random import randrange
from time import monotonic

from rich.console import Console
from rich.markup import escape

from tests.mutants.flaws import FLAWS, Flaw
from tests.mutants.sample import draw

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 600.0
"""For all tests of one flaw. A test that hangs has noticed something, too."""
OPTIONS = ("-q", "-x", "-n", "2", "-p", "no:cacheprovider", "--hypothesis-profile=unshrunk")
NO_END = "it does not end"

console = Console()


def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only flaws whose names contain one of these")
    parser.add_argument("--sample", type=int, metavar="N", help="N random places instead of the known flaws")
    parser.add_argument("--seed", type=int, default=randrange(10**6), help="the same places again")  # noqa: S311
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobhook-mutants-") as name:
        folder = Path(name)
        copy(folder)
        if options.sample:
            return sampled(folder, options.sample, options.seed)
        words = options.words or [""]
        return known(folder, [flaw for flaw in FLAWS if any(word in flaw.name for word in words)])


def known(folder: Path, chosen: Sequence[Flaw]) -> int:
    """Plants the known flaws."""
    if not passes(folder, {test for flaw in chosen for test in flaw.tests}):
        return 1
    missed = 0
    for flaw in chosen:
        sound = {edit.file: (folder / edit.file).read_text("utf-8") for edit in flaw.edits}
        missed += not noticed(folder, f"{flaw.promise}  {flaw.name}", flawed(flaw, sound), flaw.tests)
    console.print(f"{len(chosen) - missed} of {len(chosen)} flaws caught.")
    return 1 if missed else 0


def sampled(folder: Path, number: int, seed: int) -> int:
    """Plants random ones."""
    mutants = draw(folder, number, seed)
    if not passes(folder, {test for mutant in mutants for test in mutant.tests}):
        return 1
    survivors = []
    for mutant in mutants:
        source = (folder / mutant.file).read_bytes()
        name = f"{mutant.file} {mutant.site.described(source)}"
        if not noticed(folder, name, {mutant.file: mutant.site.applied(source).decode()}, mutant.tests):
            survivors.append(name)
    share = (len(mutants) - len(survivors)) / len(mutants)
    console.print(f"\nSeed {seed}: {len(mutants) - len(survivors)} of {len(mutants)} noticed ({share:.0%}). Survivors:")
    for name in survivors:
        console.print(f"  {name}", markup=False)
    return 0


def passes(folder: Path, tests: Collection[str]) -> bool:
    """Whether the tests pass as long as nothing is broken."""
    if failed := run(folder, sorted(tests)):
        console.print(f"Without any flaw, a test fails: {failed}", style="red")
    return not failed


def copy(folder: Path) -> None:
    """All that git knows of, as it is in the working tree."""
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in known.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def noticed(folder: Path, name: str, texts: dict[str, str], tests: Sequence[str]) -> bool:
    """Whether the tests notice that files have these texts; says so."""
    sound = {file: (folder / file).read_text("utf-8") for file in texts}
    begun = monotonic()
    try:
        for file, text in texts.items():
            (folder / file).write_text(text, "utf-8")
        by = run(folder, tests)
    finally:
        for file, text in sound.items():
            (folder / file).write_text(text, "utf-8")
    verdict = f"[green]caught[/] by {escape(by)}" if by else "[red bold]MISSED[/]"
    console.print(f"{escape(name)}: {verdict}  [dim]({monotonic() - begun:.0f} s)[/]", soft_wrap=True)
    return bool(by)


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
