"""What the README and the page of settings say is so."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from app.cli import app as cli
from app.config.settings import Settings
from app.config.table import settings_page, settings_table
from app.delivery.envelope import identify, read_envelope
from app.delivery.samples import sample
from app.inbox.inbox import Inbox
from app.inbox.record import Delivery
from app.simulator import Api, serve
from tests.support.deliveries import accept_all
from tests.support.inbox import take
from tests.support.stack import KEY, ROOT
from workers.processor import Processor
from workers.registry import registry

README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    """To renew it: jobhook settings --markdown."""
    begin, end = "<!-- settings: `jobhook settings --markdown` -->\n", "<!-- end of settings -->"
    assert README.partition(begin)[2].partition(end)[0].strip() == settings_table().strip()


def test_the_page_of_settings_is_the_one_of_the_code() -> None:
    """To renew it: jobhook settings --markdown > deploy/SETTINGS.md."""
    assert (ROOT / "deploy/SETTINGS.md").read_text() == settings_page()


def test_every_command_it_names_exists() -> None:
    named = set(re.findall(r"jobhook ([a-z]+)\b", re.sub(r"^.*jobhook/.*$", "", README, flags=re.MULTILINE)))
    names = {command.name or getattr(command.callback, "__name__", "") for command in cli.registered_commands}
    assert named - {"receives", "refuses", "stands", "its"} <= names


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_promise_has_a_test_that_cites_it() -> None:
    tests = "".join(file.read_text() for file in Path(ROOT, "tests").glob("*/test_*.py"))
    for number in range(1, 9):
        assert re.search(rf"\bP{number}\b", tests), f"P{number}"


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.partition("def ")[2].partition("(")[0])
def test_every_handler_in_the_readme_runs(
    example: str, monkeypatch: pytest.MonkeyPatch, inbox: Inbox, settings: Settings
) -> None:
    """As it stands there, with the names that it leaves to the reader."""
    monkeypatch.setattr(registry, "handlers", [])
    used: list[str] = []

    def use(name: str) -> Callable[..., str]:
        def called(*_: object, **__: object) -> str:
            used.append(name)
            return name

        return called

    names: dict[str, object] = {
        "__name__": "readme",
        "ledger_is_closed": lambda: False,
        "ledger": SimpleNamespace(post=use("ledger")),
        "billing": SimpleNamespace(create=use("billing")),
        "mailer": SimpleNamespace(send=use("mailer")),
        "board": SimpleNamespace(show=use("board")),
    }
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - our own README
    (handler,) = registry.handlers
    type = next(t for t in ("invoice.paid", "job.completed") if handler.pattern.match(t))
    body = sample(type)
    envelope = read_envelope(body)
    identity = identify(body, envelope.event_id)
    meta = orjson.dumps(envelope._asdict())
    accept_all(settings, Delivery(identity.id, identity.digest, meta, body))
    record = take(inbox)
    with serve(Api(KEY)) as jobsiteon:
        api = {"api_url": f"{jobsiteon.url}/v1", "api_plain_loopback": True}
        inbox.settings = settings.model_copy(update=api)
        ended = Processor(inbox, registry).process(record)
    assert ended
    assert (ended.outcome, ended.unhandled) == ("done", False), ended.attempt
    assert used
    inbox.work("w", ended, want="")
