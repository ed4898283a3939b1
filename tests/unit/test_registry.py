"""Which handlers get which events."""

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workers
from app.config.settings import Settings
from app.errors import ConfigError
from tests.support.stack import make_settings
from workers import Event, JobsiteOn
from workers import registry as registry_module
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


def test_a_package_that_is_missing_is_named_and_where_to_add_it(write: Write, tmp_path: Path) -> None:
    """P9: with the file and line of the handler that imports it."""
    write({"__init__.py": "", "one.py": "import json\n\nimport no_such_package.part"})
    with pytest.raises(ConfigError) as raised:
        load(settings_with(PACKAGE))
    file = tmp_path / PACKAGE / "one.py"
    assert f"in {file}, line 3. Add the package that has 'no_such_package' to requirements-handlers.txt" in str(
        raised.value
    )


@pytest.mark.parametrize(
    ("source", "line"),
    [("\n\ndef (", 3), ("from json import nothing_of_the_kind", 1), ("import json\njson.loads('{')", 2)],
    ids=["syntax", "a name that is missing", "raised inside of a library"],
)
def test_the_line_that_cannot_be_imported_is_named(write: Write, tmp_path: Path, source: str, line: int) -> None:
    """P9: the handler's own, also when the error comes out of a library."""
    write({"__init__.py": "", "one.py": source})
    with pytest.raises(ConfigError) as raised:
        load(settings_with(PACKAGE))
    assert str(raised.value).endswith(f"in {tmp_path / PACKAGE / 'one.py'}, line {line}")


def test_a_module_of_ones_own_that_is_missing_is_no_package_to_install(write: Write) -> None:
    write({"__init__.py": f"import {PACKAGE}.nowhere"})
    with pytest.raises(ConfigError) as raised:
        load(settings_with(PACKAGE))
    assert "requirements" not in str(raised.value)


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


# What is refused


@pytest.mark.parametrize("pattern", ["", " ", None, 3, ["invoice.paid"], ("a", "b")])
def test_a_pattern_that_is_none_is_refused(pattern: Any) -> None:
    with pytest.raises(ConfigError, match="say which events"):
        Registry().on(pattern)


def test_a_decorator_without_a_pattern_is_refused() -> None:
    """P2: it would register nothing."""
    with pytest.raises(ConfigError, match="say which events"):
        Registry().on()


def test_a_decorator_without_parentheses_is_refused() -> None:
    """P2: it would register nothing."""

    def book(event: Event) -> None: ...

    with pytest.raises(ConfigError, match=r'which events .*book is for: @on\("invoice.paid"\)'):
        Registry().on(book)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, False, "invoice", ""])
def test_what_runs_one_at_a_time_is_known(value: Any) -> None:
    """P10."""
    with pytest.raises(ConfigError, match="one_at_a_time"):
        Registry().on("*", one_at_a_time=value)


def generator(event: Event) -> Iterator[int]:
    yield 1


async def async_generator(event: Event) -> AsyncIterator[int]:
    yield 1


async def coroutine(event: Event) -> None: ...


class Owner:
    """What can be called is registered under a name that it is given."""

    async def __call__(self, event: Event) -> None: ...

    def method(self, event: Event) -> None: ...

    def lazy(self, event: Event) -> Iterator[int]:
        yield 1


class LazyCallable:
    def __call__(self, event: Event) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(generator),
        functools.partial(functools.partial(async_generator)),
        staticmethod(generator),
        LazyCallable(),
        Owner().lazy,
        Owner,
        dict,
        classmethod(lambda _, event: None),
        None,
        "book",
    ],
)
def test_what_would_be_done_without_having_run_is_refused(function: Any) -> None:
    """P2."""
    registry = Registry()
    with pytest.raises(ConfigError, match="Handler book"):
        registry.on("*", name="book")(function)
    assert registry.handlers == []


@pytest.mark.parametrize(
    "function",
    [
        coroutine,
        functools.partial(coroutine),
        staticmethod(coroutine),
        Owner(),
        Owner().method,
        lambda event: coroutine(event),  # noqa: PLW0108 - that is it
        print,
        [].append,
    ],
    ids=["async", "partial", "staticmethod", "object", "method", "lambda", "builtin", "builtin method"],
)
def test_whatever_else_can_be_called_is_registered(function: Any) -> None:
    registry = Registry()
    registry.on("*", name="book")(function)
    assert registry.handlers[0].needs == ()


def test_a_bound_method_may_have_several_patterns() -> None:
    registry, owner = Registry(), Owner()
    registry.on("a")(owner.method)
    registry.on("b")(owner.method)
    assert len(registry.handlers) == 2


# Names


def test_a_name_given_to_a_handler_is_its_name() -> None:
    """P5: it outlives the function's renaming and its moving elsewhere."""
    registry = Registry()
    registry.on("a", name="book")(coroutine)
    registry.on("b", name="book")(coroutine)
    assert names(registry) == registry.names == {"book"}


@pytest.mark.parametrize("name", ["", " ", " book", "book\n", "a\0b", "a / b", "\ud800", 3, ["book"]])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="name="):
        Registry().on("*", name=name)(coroutine)


@pytest.mark.parametrize("function", [functools.partial(coroutine), Owner()], ids=["partial", "object"])
def test_what_has_no_name_of_its_own_has_to_be_given_one(function: Any) -> None:
    with pytest.raises(ConfigError, match=r'has no name of its own: give it one: @on\(…, name="book"\)'):
        Registry().on("*")(function)


def test_a_function_has_one_name() -> None:
    """P5: under two, it would run twice for one event."""
    registry = Registry()
    registry.on("a", name="book")(coroutine)
    with pytest.raises(ConfigError, match="it can have only one"):
        registry.on("b")(coroutine)


def test_a_handler_for_trying_out_is_registered_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: in production the example would call the API with the customer's key."""
    registry = Registry()
    registry.on("*", dev_only=True)(coroutine)
    assert registry.handlers == []
    monkeypatch.setenv("JOBHOOK_DEV", "true")
    registry.on("*", dev_only=True)(coroutine)
    assert len(registry.handlers) == 1


# What a handler is given besides the event


def needed(function: Any) -> list[tuple[str, bool]]:
    registry = Registry()
    registry.on("*", name="book")(function)
    return [(need.parameter, need.by_name) for need in registry.handlers[0].needs]


def test_a_parameter_with_a_default_keeps_it() -> None:
    def book(event: Event, retries: int = 3, *, ledger: object = None) -> None: ...

    assert needed(book) == []


def test_any_number_of_parameters_is_none() -> None:
    def wrapper(*args: object, **kwargs: object) -> None: ...

    def book(event: Event, *args: object, **kwargs: object) -> None: ...

    assert needed(wrapper) == needed(book) == []


def test_what_a_wrapped_function_needs_is_needed() -> None:
    def book(event: Event, client: JobsiteOn) -> None: ...

    @functools.wraps(book)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    assert needed(wrapper) == [("client", False)]


def test_a_parameter_that_takes_a_name_only_is_given_by_name() -> None:
    def book(event: Event, *, client: JobsiteOn) -> None: ...

    assert needed(book) == [("client", True)]


def test_the_event_may_be_known_to_type_checkers_only(write: Write) -> None:
    """As linters move such imports."""
    imports = "from typing import TYPE_CHECKING\nfrom workers import JobsiteOn, on\nif TYPE_CHECKING:\n"
    source = (
        f"{imports}    from workers import Event\n@on('*')\ndef book(event: 'Event', client: 'JobsiteOn') -> 'Event':\n"
    )
    write({"__init__.py": source + "    ...\n"})
    (handler,) = load(settings_with(PACKAGE)).handlers
    assert [need.type for need in handler.needs] == [JobsiteOn]


def test_what_else_is_known_to_type_checkers_only_is_told() -> None:
    def book(event: Event, client: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"'client' is annotated 'Nowhere', .*outside of `if TYPE_CHECKING`"):
        needed(book)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            "event, number: int",
            r"'number' is annotated <class 'int'>. What a handler can be given: AsyncJobsiteOn, JobsiteOn",
        ),
        ("event, numbers: list[int]", "'numbers' is annotated"),
        ("event, numbers: {}", "'numbers' is annotated"),
        ("event, client: JobsiteOn | None", "'client' is annotated"),
        ("client: JobsiteOn, event: Event", "the event comes first"),
        ("self, event: Event", "the event comes first. Is it a method"),
        ("event, thing", "say by an annotation what 'thing' is"),
        ("", "has to take the event"),
        ("*, event", "has to take the event"),
        ("**event", "has to take the event"),
    ],
)
def test_what_nobody_can_give_is_told_when_it_is_loaded(write: Write, parameters: str, message: str) -> None:
    """P2, P10: not by each of its events."""
    source = f"from workers import Event, JobsiteOn, on\n@on('*')\ndef handle({parameters}): ..."
    write({"__init__.py": source})
    with pytest.raises(ConfigError, match=message):
        load(settings_with(PACKAGE))


def test_all_that_handlers_need_is_in_one_place() -> None:
    for name in workers.__all__:
        assert getattr(workers, name).__module__.startswith("workers.")
    with pytest.raises(AttributeError, match="has no attribute 'Evnt'"):
        workers.Evnt  # noqa: B018
