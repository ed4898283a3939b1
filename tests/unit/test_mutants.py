"""The flaws of `make mutants`: each still fits the code. Whether they are noticed takes longer to find out."""

from pathlib import Path

import pytest

from tests.mutants.__main__ import file_of, flawed
from tests.mutants.flaws import FLAWS, Flaw
from tests.mutants.sample import draw
from tests.mutants.sites import lua_sites, python_sites

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


def test_random_places_in_python() -> None:
    source = b"""def f(a: int = 1) -> bool:
    'No number 2 in here.'
    log.info("said", n=3)
    if a < 4 and not a:
        g(a)
    return a in (True,)
"""
    found = {site.described(source) for site in python_sites(source)}
    assert found == {
        "line 1: 1 → 2",
        "line 3: 3 → 4",
        "line 4: a < 4 and not a → not (a < 4 and not a)",
        "line 4: and → or",
        "line 4: < → <=",
        "line 4: 4 → 5",
        "line 4: not → (nothing)",
        "line 5: g(a) → pass",
        "line 6: a in (True,) → None",
        "line 6: in → not in",
        "line 6: True → False",
    }


def test_random_places_in_lua() -> None:
    source = "if a == 1 then -- not 2, ü\n  redis.call('DEL', k2)\nend\n".encode()
    found = {site.described(source) for site in lua_sites(source)}
    assert found == {
        "line 1: a == 1 → not (a == 1)",
        "line 1: == → ~=",
        "line 1: 1 → 2",
        "line 2: redis.call('DEL', k2) → (nothing)",
    }


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    drawn = draw(ROOT, 20, seed=1)
    assert drawn == draw(ROOT, 20, seed=1) != draw(ROOT, 20, seed=2)
    assert all(file_of(ROOT, name) for mutant in drawn for name in mutant.tests)


def test_every_promise_is_put_to_the_test() -> None:
    assert {flaw.promise for flaw in FLAWS} >= {f"P{number}" for number in (*range(1, 9), 10)}
    assert len({flaw.name for flaw in FLAWS}) == len(FLAWS)


def test_no_two_test_modules_have_one_name() -> None:
    """A mutant names its tests without the folder."""
    names = [file.name for file in ROOT.glob("tests/*/test_*.py")]
    assert sorted(names) == sorted(set(names))
