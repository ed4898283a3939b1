"""Every `jobhook …` of deploy/RUNBOOKS.md and the other pages of deploy/ is one that the command line takes."""

import re
import shlex
from typing import Any

import pytest
import typer

from app.cli import app
from tests.support.stack import ROOT

PAGES = ("RUNBOOKS.md", "MANAGED_REDIS.md", "SCALING.md", "README.md")
BLOCK = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(jobhook [^`]+)`", re.DOTALL)
HEADINGS = (
    "The first delivery does not verify",
    "A key is compromised",
    "Redis is full",
    "Redis is lost",
    "Dead letters pile up",
    "JobsiteOn was down",
    "My ledger was down",
    "Upgrade",
    "Back up",
    "Restore",
    "Move to another Redis",
)


def commands(page: str) -> list[str]:
    text = (ROOT / "deploy" / page).read_text("utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    found = [line.strip().partition("jobhook ")[2] for line in lines if re.match(r" *(\S+ )*?jobhook [a-z]", line)]
    found += [inline.removeprefix("jobhook ") for inline in INLINE.findall(BLOCK.sub("", text))]
    return [command for command in found if "──" not in command and not command.startswith("…")]  # no drawings


CASES = [(page, command) for page in PAGES if (ROOT / "deploy" / page).exists() for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), CASES)
def test_the_command_and_its_options_exist(page: str, command: str) -> None:
    """Parsed, not run. What stands at some distance behind it says what it does."""
    words = shlex.split(re.split(r" {3,}| > ", command)[0], comments=True)
    group: Any = typer.main.get_command(app)
    names: list[str] = []
    while words and words[0] in getattr(group, "commands", ()):
        names.append(words.pop(0))
        group = group.commands[names[-1]]
    assert names, f"no such command: {command}"
    group.make_context(" ".join(names), words)


def test_each_of_them_is_there() -> None:
    text = (ROOT / "deploy" / "RUNBOOKS.md").read_text("utf-8")
    assert [heading for heading in HEADINGS if f"\n## {heading}\n" not in text] == []
    assert len([page for page, _ in CASES if page == "RUNBOOKS.md"]) > len(HEADINGS)
