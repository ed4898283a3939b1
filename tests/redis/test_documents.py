"""What the documents say is so."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.cli import app as cli
from app.config.settings import Settings
from app.config.table import settings_table
from app.delivery.samples import sample
from app.inbox.inbox import Inbox
from app.inbox.record import STATES
from app.ops.problems import as_markdown as problems_table
from app.simulator import Api, serve
from tests.support.deliveries import accept_all, received
from tests.support.inbox import take
from tests.support.stack import KEY, ROOT
from workers.processor import Processor
from workers.registry import registry

DOCUMENTS = sorted(file for file in ROOT.glob("**/*.md") if not {".venv", ".data"} & set(file.relative_to(ROOT).parts))
TEXTS = {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in DOCUMENTS}
MOST_LINES_OF_THE_README = 200
CODE_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    """To renew it: put in what `jobhook settings --markdown` prints."""
    begin, end = "<!-- settings: `jobhook settings --markdown` -->\n", "<!-- end of settings -->"
    page = TEXTS["deploy/SETTINGS.md"]
    assert page.partition(begin)[2].partition(end)[0].strip() == settings_table().strip()


def test_every_finding_is_on_the_page_with_its_remedy() -> None:
    """P9. To renew it: put in what `jobhook doctor --markdown` prints."""
    begin, end = "<!-- findings: `jobhook doctor --markdown` -->\n", "<!-- end of findings -->"
    page = TEXTS["deploy/TROUBLESHOOTING.md"]
    assert page.partition(begin)[2].partition(end)[0].strip() == problems_table().strip()


@pytest.mark.parametrize("document", TEXTS)
def test_every_command_it_names_exists(document: str) -> None:
    """In code: `jobhook name …`, or a line of a block that begins so."""
    names = {command.name or getattr(command.callback, "__name__", "") for command in cli.registered_commands}
    names |= {str(group.typer_instance.info.name) for group in cli.registered_groups if group.typer_instance}
    prose = CODE_BLOCK.sub("", TEXTS[document])
    blocks = "".join(block for _, block in CODE_BLOCK.findall(TEXTS[document]))
    named = set(re.findall(r"`(?:\S*/)?jobhook ([a-z]+)", prose)) | set(
        re.findall(r"^ *jobhook ([a-z]+)", blocks, re.MULTILINE)
    )
    assert named <= names


@pytest.mark.parametrize(
    ("document", "link"),
    [
        (document, link)
        for document, text in TEXTS.items()
        for link in sorted(set(re.findall(r"\]\(([^)\s]+)\)", CODE_BLOCK.sub("", text))))
        if "://" not in link
    ],
)
def test_every_link_leads_somewhere(document: str, link: str) -> None:
    path, _, heading = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    assert target.exists()
    if heading:
        assert heading in anchors(target.read_text("utf-8"))


def anchors(text: str) -> set[str]:
    """The names by which the headings of a page can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_read_to_its_end() -> None:
    assert TEXTS["README.md"].count("\n") < MOST_LINES_OF_THE_README


def test_every_promise_has_a_test_that_cites_it() -> None:
    tests = "".join(file.read_text() for file in Path(ROOT, "tests").glob("*/test_*.py"))
    for number in range(1, 10):
        assert re.search(rf"\bP{number}\b", tests), f"P{number}"


KEY_IN_LUA = re.compile(r"\bP \.\. '([a-z_]+)")
KEY_IN_PYTHON = re.compile(r"""(?:\{PREFIX\}|\bPREFIX \+ "|"jobhook:)([a-z_]+)""")
OTHER_PREFIXES = ("app/config/", "app/simulator/")  # of variables and of paths


def test_the_architecture_names_every_key_and_no_other() -> None:
    """By the first word after `jobhook:`, as scripts and modules write it."""
    used = set(STATES)
    for file in ROOT.glob("app/inbox/scripts/*.lua"):
        used |= set(KEY_IN_LUA.findall(file.read_text("utf-8")))
    for file in [*ROOT.glob("app/**/*.py"), *ROOT.glob("workers/**/*.py")]:
        if not file.relative_to(ROOT).as_posix().startswith(OTHER_PREFIXES):
            used |= set(KEY_IN_PYTHON.findall(file.read_text("utf-8")))
    assert first_columns("Keys in Redis") == used


def test_the_architecture_names_every_script() -> None:
    scripts = {file.stem for file in ROOT.glob("app/inbox/scripts/*.lua")} - {"common"}
    assert first_columns("The life of an event") == scripts


def first_columns(heading: str) -> set[str]:
    """What the rows of a table of ARCHITECTURE.md begin with: code, up to a colon."""
    return set(re.findall(r"^\| \[?`([a-z_]+)[:`]", section("ARCHITECTURE.md", heading), re.MULTILINE))


def test_the_architecture_names_every_room() -> None:
    rooms = {file.parent.relative_to(ROOT).as_posix() + "/" for file in ROOT.glob("app/*/__init__.py")}
    assert rooms <= set(re.findall(r"`([\w/]+/)`", section("ARCHITECTURE.md", "The rooms")))


def section(document: str, heading: str) -> str:
    """The text below a heading of the second level."""
    return TEXTS[document].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


EXAMPLES = [
    pytest.param(block, id=f"{document}-{block.partition('def ')[2].partition('(')[0]}")
    for document, text in TEXTS.items()
    for language, block in CODE_BLOCK.findall(text)
    if language == "python"
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_handler_in_the_documents_runs(
    example: str, monkeypatch: pytest.MonkeyPatch, inbox: Inbox, settings: Settings
) -> None:
    """As it stands there, with the names that it leaves to the reader."""
    monkeypatch.setattr(registry, "handlers", [])
    monkeypatch.setattr(registry, "of_the_dead", [])
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
    exec(compile(example, "example", "exec"), names)  # noqa: S102 - our own documents
    registry.handlers += registry.of_the_dead  # what is run when an event has died is run in the same way
    (handler,) = registry.handlers
    type = next(t for t in ("invoice.paid", "job.completed") if handler.pattern.match(t))
    body = sample(type)
    accept_all(settings, received(body))
    record = take(inbox)
    with serve(Api(KEY)) as jobsiteon:
        api = {"api_url": f"{jobsiteon.url}/v1", "api_plain_loopback": True}
        inbox.settings = settings.model_copy(update=api)
        ended = Processor(inbox, registry).process(record)
    assert ended
    assert (ended.outcome, ended.unhandled) == ("done", False), ended.attempt
    assert used
    inbox.work("w", ended, want="")
    for name, test in list(names.items()):
        if name.startswith("test_"):
            used.clear()
            test()  # type: ignore[operator]
            assert len(used) == 1
