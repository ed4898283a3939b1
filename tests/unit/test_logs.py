"""One line an event, and P7: no line quotes what a foreign error says."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from pydantic import SecretStr

from app.config.settings import Settings
from app.ops.logs import configure

QUIETED = ("rq.worker", "rq.job", "httpx", "httpcore")

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]
Configure = Callable[..., None]


@pytest.fixture
def configure_logs() -> Iterator[Configure]:
    """Configures logging; afterwards it is as before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    quieted = {name: logging.getLogger(name).level for name in QUIETED}
    was_configured, configuration = structlog.is_configured(), structlog.get_config()
    root.handlers.clear()  # so that they are not closed

    def configure_with(level: Level = "info", format: Format = "json") -> None:
        configure(Settings(api_key=SecretStr("jso_live_8f2c1d7e4b6a9035"), log_level=level, log_format=format))

    yield configure_with
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quieted.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    if was_configured:
        structlog.configure(**configuration)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged as JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def log_at_every_level(logger: Any) -> None:
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)


def foreign_failure() -> ValueError:
    """As raised by a library that quotes what it could not read."""
    try:
        json.loads("canary")
    except ValueError as error:
        error.add_note("canary")
        error.args = ("canary",)
        return error
    raise AssertionError


def test_a_line_is_json(configure_logs: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger().info("delivery", status="new", bytes=7)
    [line] = lines(capsys)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert line == {"event": "delivery", "level": "info", "status": "new", "bytes": 7}


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_line_that_cannot_be_written_is_no_reason_to_fail(
    format: Format, configure_logs: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5, P6: a disk that is full of logs must neither keep a delivery's answer back nor repeat a handler."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        configure_logs(format=format)
        log_at_every_level(structlog.get_logger())
        with pytest.raises(OSError, match="No space left"):
            full.close()  # it was full indeed
    log_at_every_level(structlog.get_logger())  # nor is one that is closed


def test_other_loggers_have_the_same_form(configure_logs: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of uvicorn, RQ and handlers."""
    configure_logs()
    logging.getLogger("somebody.else").warning("sent %s\nof %d", "one", 2)
    [line] = lines(capsys)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() == timedelta(0)
    assert line == {"event": "sent one\nof 2", "level": "warning"}


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger], ids=["ours", "foreign"])
def test_logs_from_the_level_that_is_set(
    level: Level,
    logged: list[str],
    get_logger: Callable[[str], Any],
    configure_logs: Configure,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(level)
    log_at_every_level(get_logger("somebody"))
    assert [line["event"] for line in lines(capsys)] == logged


@pytest.mark.parametrize("name", QUIETED)
def test_talkative_libraries_are_quieted(
    name: str, configure_logs: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """RQ's and httpx's lines about each job and request carry descriptions and URLs."""
    configure_logs("debug")
    log_at_every_level(logging.getLogger(name))
    assert [line["event"] for line in lines(capsys)] == ["warning", "error"]


def test_a_traceback_becomes_type_and_place(configure_logs: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """P7: the message of a foreign error may quote a payload."""
    configure_logs()
    logger = logging.getLogger("somebody.else")
    logger.error("failed", exc_info=foreign_failure())
    try:
        raise foreign_failure()
    except ValueError:
        logger.exception("failed again")
    output = capsys.readouterr().out
    assert "canary" not in output
    for line in map(json.loads, output.splitlines()):
        assert line["error"] == "json.decoder.JSONDecodeError"
        assert line["where"].endswith(" in raw_decode")


def test_a_traceback_on_a_terminal_becomes_type_and_place_too(
    configure_logs: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """P7."""
    configure_logs(format="console")
    logging.getLogger("somebody.else").error("failed", exc_info=foreign_failure())
    output = capsys.readouterr().out
    assert "JSONDecodeError" in output
    assert "canary" not in output


def test_what_json_cannot_express_is_written_as_text(
    configure_logs: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs()
    structlog.get_logger().info("refused", peer=ip_address("203.0.113.9"))
    [line] = lines(capsys)
    assert line["peer"] == "203.0.113.9"


def test_configuring_again_doubles_nothing(configure_logs: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    configure_logs()
    structlog.get_logger().info("ours")
    logging.getLogger("somebody.else").info("foreign")
    assert [line["event"] for line in lines(capsys)] == ["ours", "foreign"]


@pytest.mark.parametrize("on_a_terminal", [True, False], ids=["terminal", "pipe"])
def test_the_form_follows_the_output_by_default(
    on_a_terminal: bool,
    configure_logs: Configure,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_a_terminal)
    configure_logs(format="auto")
    structlog.get_logger().info("delivery")
    output = capsys.readouterr().out
    assert "delivery" in output
    assert output.startswith("{") != on_a_terminal
