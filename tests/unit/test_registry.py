"""Which handlers get which events."""

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.config.settings import Settings
from app.errors import ConfigError
from tests.support.stack import make_settings
from workers import registry as registry_module
from workers.event import Event
from workers.loading import load
from workers.registry import Registry

PACKAGE = "handlers_of_a_test"

Write = Callable[[dict[str, str]], None]


def settings_with(*modules: str) -> Settings:
    return make_settings("redis://127.0.0.1", handlers=modules)


def registered(pattern: str) -> Registry:
    registry = Registry()

    @registry.on(pattern)
    def handle(event: Event) -> None:
        """Is never called."""

    return registry


@pytest.mark.parametrize(
    ("pattern", "type", "wanted"),
    [
        ("invoice.paid", "invoice.paid", True),
        ("invoice.paid", "invoice.paid.late", False),
        ("invoice.paid", "prepaid.invoice.paid", False),
        ("invoice.paid", "invoice_paid", False),
        ("invoice.paid", "Invoice.Paid", True),
        ("Invoice.PAID", "invoice.paid", True),
        ("invoice.*", "invoice.paid", True),
        ("invoice.*", "invoice.payment.failed", True),
        ("invoice.*", "invoice.", True),
        ("invoice.*", "invoice", False),
        ("invoice.*", "invoices.paid", False),
        ("*.paid", "invoice.paid", True),
        ("*", "invoice.paid", True),
        ("*", "unknown", True),
        ("unknown", "unknown", True),
        # As in file names, which the patterns are modelled on:
        ("job.v?", "job.v2", True),
        ("job.v?", "job.v", False),
        ("job.v[12]", "job.v2", True),
        ("job.v[12]", "job.v3", False),
        ("job.v[!12]", "job.v3", True),
        ("job.[", "job.[", True),
        # What is special in regular expressions is not special here:
        ("job.created|job.updated", "job.updated", False),
        ("(job)+", "job", False),
        ("", "invoice.paid", False),
    ],
)
def test_a_pattern_selects_types(pattern: str, type: str, wanted: bool) -> None:
    assert bool(registered(pattern).matching(type)) == wanted


def test_handlers_come_in_the_order_of_their_registration() -> None:
    registry = Registry()

    @registry.on("*")
    def zulu(event: Event) -> None: ...

    @registry.on("job.created")
    def alpha(event: Event) -> None: ...

    @registry.on("job.*")
    def mike(event: Event) -> None: ...

    assert [handler.function for handler in registry.matching("job.created")] == [zulu, alpha, mike]
    assert [handler.function for handler in registry.matching("invoice.paid")] == [zulu]


def test_a_function_with_several_patterns_runs_once_per_event() -> None:
    """P5."""
    registry = Registry()

    @registry.on("job.*")
    @registry.on("job.created")
    @registry.on("invoice.paid")
    def handle(event: Event) -> None: ...

    assert [handler.function for handler in registry.matching("job.created")] == [handle]
    assert [handler.function for handler in registry.matching("invoice.paid")] == [handle]


def test_the_name_under_which_success_is_recorded_is_module_and_function() -> None:
    """P5: were it to change from release to release, finished handlers would run again."""
    [handler] = registered("*").matching("job.created")
    assert handler.name == f"{__name__}.registered.<locals>.handle"


def test_a_decorated_function_stays_what_it_was() -> None:
    registry = Registry()

    async def handle(event: Event) -> None: ...

    assert registry.on("*")(handle) is handle
    [handler] = registry.matching("job.created")
    assert inspect.iscoroutinefunction(handler.function)


# Loading


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules of the package; afterwards nothing of it is left in this process."""
    monkeypatch.setattr(registry_module.registry, "handlers", [])

    def write_modules(modules: dict[str, str]) -> None:
        for name, source in modules.items():
            path = tmp_path / PACKAGE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    yield write_modules
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def handles(pattern: str) -> str:
    return f"from workers import on\n@on({pattern!r})\ndef handle(event): ..."


def names(registry: Registry) -> set[str]:
    return {handler.name for handler in registry.handlers}


def test_loads_all_that_a_package_holds(write: Write) -> None:
    write(
        {
            "__init__.py": handles("a"),
            "one.py": handles("b"),
            "deep/__init__.py": "",
            "deep/two.py": handles("c"),
            "helpers.py": "ANSWER = 42",
        }
    )
    assert names(load(settings_with(PACKAGE))) == {
        f"{PACKAGE}.handle",
        f"{PACKAGE}.one.handle",
        f"{PACKAGE}.deep.two.handle",
    }


def test_loads_a_single_module(write: Write) -> None:
    write({"__init__.py": "", "one.py": handles("b"), "two.py": handles("c")})
    assert names(load(settings_with(f"{PACKAGE}.one"))) == {f"{PACKAGE}.one.handle"}


def test_loading_twice_registers_once(write: Write) -> None:
    write({"__init__.py": "", "one.py": handles("*")})
    load(settings_with(PACKAGE))
    assert len(load(settings_with(PACKAGE)).matching("job.created")) == 1


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("raise RuntimeError('no database')", "no database"),
        ("def broken(", "SyntaxError"),
    ],
    ids=["import", "raises", "syntax"],
)
@pytest.mark.parametrize("module", ["__init__.py", "one.py", "deep/__init__.py", "deep/two.py"])
def test_a_module_that_cannot_be_imported_is_an_error_of_the_settings(
    module: str, source: str, cause: str, write: Write
) -> None:
    """P2: else its events would pass unhandled, as if nobody wanted them."""
    write({"__init__.py": "", "deep/__init__.py": "", module: source})
    with pytest.raises(ConfigError, match=f"JOBHOOK_HANDLERS: {PACKAGE} cannot be imported: .*{cause}"):
        load(settings_with(PACKAGE))


def test_a_module_that_does_not_exist_is_an_error_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="JOBHOOK_HANDLERS: no_such_module_anywhere cannot be imported"):
        load(settings_with("no_such_module_anywhere"))


def test_two_functions_of_one_name_are_refused() -> None:
    """P5: their success could not be told apart."""
    registry = Registry()

    def make() -> Callable[[Event], None]:
        def handle(event: Event) -> None:
            """Is never called."""

        return handle

    registry.on("a")(make())
    with pytest.raises(ConfigError, match="Two handlers are named"):
        registry.on("b")(make())


def test_what_cannot_be_given_to_a_handler_is_told_at_once() -> None:
    registry = Registry()
    with pytest.raises(ConfigError, match="say by an annotation what 'thing' is"):
        registry.on("*")(lambda event, thing: None)
    with pytest.raises(ConfigError, match="has to take the event"):
        registry.on("*")(lambda: None)
