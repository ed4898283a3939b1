"""What is printed becomes log lines, and printing never fails."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest

from app.ops import printed

Lines = Callable[[], list[Any]]


@contextmanager
def taken(out: io.StringIO | None = None) -> Iterator[Lines]:
    """What is logged, as [text, stream] each, while prints are taken."""
    out = out or io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        printed.take(lambda text, stream: json.dumps([text, stream]))
        yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_line_becomes_one() -> None:
    with taken() as logged:
        print("one\ntwo")  # noqa: T201
        print("three", file=sys.stderr)  # noqa: T201
        sys.stdout.buffer.write(b"four \xff\n")
    assert logged() == [["one", "stdout"], ["two", "stdout"], ["three", "stderr"], ["four \\xff", "stdout"]]


def test_pieces_are_put_together_until_the_handler_ends() -> None:
    with taken() as logged:
        for dot in "...":
            print(dot, end="", flush=True)  # noqa: T201
        assert logged() == []
        printed.finish()
        printed.finish()
    assert logged() == [["...", "stdout"]]


def test_what_never_ends_is_cut() -> None:
    with taken() as logged:
        print("x" * (3 * printed.LONGEST_BYTES), end="")  # noqa: T201
        printed.finish()
    assert {len(text) for text, _ in logged()} == {printed.LONGEST_BYTES}


def close() -> None:
    sys.stdout.close()


def detach() -> None:
    sys.stdout.detach()  # type: ignore[union-attr]


def surrogate() -> None:
    print("\udc80")  # noqa: T201


@pytest.mark.parametrize("act", [close, detach, surrogate])
def test_whatever_is_done_to_it_the_end_of_a_handler_does_not_fail(act: Callable[[], None]) -> None:
    with taken():
        act()
        printed.finish()


def test_a_log_that_cannot_be_written_fails_no_print() -> None:
    closed = io.StringIO()
    closed.close()
    with taken(closed):
        print("nobody hears it")  # noqa: T201
        printed.finish()
