"""The flaws of `make mutants`: each still fits the code. Whether they are noticed takes longer to find out."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import file_of, flawed
from tests.mutants.flaws import FLAWS, Flaw

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: flaw.name)
def test_a_flaw_can_be_planted(flaw: Flaw) -> None:
    """Exactly where it is meant to be, and Python that can be read."""
    sound = {edit.file: (ROOT / edit.file).read_text("utf-8") for edit in flaw.edits}
    for file, text in flawed(flaw, sound).items():
        assert text != sound[file]
        if file.endswith(".py"):
            compile(text, file, "exec")
    assert flaw.tests
    assert all(file_of(ROOT, name) for name in flaw.tests)


def test_every_promise_is_put_to_the_test() -> None:
    assert {flaw.promise for flaw in FLAWS} == {f"P{number}" for number in range(1, 9)}
    assert len({flaw.name for flaw in FLAWS}) == len(FLAWS)
