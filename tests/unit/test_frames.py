"""Which frames of a traceback are the author's own."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from workers import frames
from workers.retry import wait


def raised_by(act: object) -> BaseException:
    try:
        act()  # type: ignore[operator]
    except (ValueError, TypeError, ArithmeticError, TimeoutError) as error:
        return error
    raise AssertionError


def test_the_innermost_own_frame_is_told_not_the_librarys() -> None:
    def book() -> None:
        json.loads("{")

    error = raised_by(book)
    assert (frames.place(error) or "").endswith(f"{Path(__file__).name}:{book.__code__.co_firstlineno + 1} in book")
    assert "json/decoder.py" not in frames.short([error])


def test_an_async_handlers_own_frame_is_told() -> None:
    async def book() -> None:
        await asyncio.wait_for(asyncio.sleep(9), timeout=0)

    assert (frames.place(raised_by(lambda: asyncio.run(book()))) or "").endswith(" in book")


def test_of_what_jobhook_raises_nothing_is_own() -> None:
    error = raised_by(lambda: wait("no number"))  # type: ignore[arg-type]
    assert error.__traceback__
    error.__traceback__ = error.__traceback__.tb_next.tb_next if error.__traceback__.tb_next else None
    assert frames.place(error) is None
    assert frames.short([error]) == ""


def test_handlers_may_be_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site-packages"
    for package, code in (("acme", "import other\ndef book(): other.fail()"), ("other", "def fail(): 1 / 0")):
        (installed / package).mkdir(parents=True)
        (installed / package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(installed))
    import acme  # type: ignore[import-not-found]  # noqa: PLC0415

    error = raised_by(acme.book)
    assert error.__traceback__
    error.__traceback__ = error.__traceback__.tb_next  # as from a worker: this file is not there
    assert (frames.place(error) or "").endswith("acme/__init__.py:2 in book")
    for name in ("acme", "other"):
        del sys.modules[name]
