"""What the README says is so."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.cli import app as cli
from app.config import settings_table
from app.inbox import Inbox, Record
from app.samples import sample
from tests.support.stack import ROOT
from workers.event import Event
from workers.registry import registry

README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    """To renew it: jobhook settings --markdown."""
    begin, end = "<!-- settings: `jobhook settings --markdown` -->\n", "<!-- end of settings -->"
    assert README.partition(begin)[2].partition(end)[0].strip() == settings_table().strip()


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"jobhook ([a-z]+)\b", re.sub(r"^.*jobhook/.*$", "", README, flags=re.MULTILINE)))
    names = {command.name or getattr(command.callback, "__name__", "") for command in cli.registered_commands}
    assert named - {"receives", "refuses", "stands", "its"} <= names


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_promise_has_a_test_that_cites_it() -> None:
    tests = "".join(file.read_text() for file in Path(ROOT, "tests").glob("test_*.py"))
    for number in range(1, 9):
        assert re.search(rf"\bP{number}\b", tests), f"P{number}"


def test_the_handler_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> None:
    """As it stands there, with the names that it leaves to the reader."""
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.setattr(registry, "handlers", [])
    posted: list[str] = []
    ledger = SimpleNamespace(post=lambda invoice, idempotency_key: posted.append(idempotency_key))
    names: dict[str, object] = {"__name__": "readme", "ledger_is_closed": lambda: False, "ledger": ledger}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own README
    (handler,) = registry.matching("invoice.paid")
    record = Record(id="an id", state="running", received=0.0, body=sample(), meta={})
    handler.function(Event(record, inbox, handler.name))
    assert posted == ["an id"]
