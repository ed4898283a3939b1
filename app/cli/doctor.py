"""`jobhook doctor` and `jobhook settings`: is everything as it should be?"""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import typer
from redis import Redis
from redis.exceptions import RedisError
from rich.markup import escape
from rich.table import Table

from app.cli.output import LEVEL_STYLES, local, print_json, print_table
from app.cli.run import workers_command
from app.config.settings import Settings
from app.config.sources import load_settings, notes
from app.config.table import settings_rows, settings_table
from app.errors import ConfigError
from app.inbox.inbox import connect
from app.inbox.rejected import RejectedDeliveries
from app.ops import handlers, watch
from app.ops.health import Health
from app.ops.problems import (
    IGNORED_SETTING,
    PLAIN_HTTP,
    REJECTED,
    WRONG_HANDLERS,
    WRONG_SETTING,
    Check,
    as_markdown,
)

IMPORT_SECONDS = 30.0
"""How long importing the handlers may take."""
PATIENCE_SECONDS = 10.0
"""How long the checks of Redis may take: each of their round trips may have far to go, and none is ready yet."""
_COMPLETE = Check("settings", "ok", "complete")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Check nothing; print all there is to find, with remedies.")
    ] = False,
) -> None:
    """Check settings, handlers, Redis, clock and workers; exit with 1 if something fails."""
    if markdown:
        typer.echo(as_markdown())
        return
    findings = list(_findings())
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            level = f"[{LEVEL_STYLES[finding.level]}]{finding.level}[/]"
            remedy = f"\n[dim]{escape(finding.remedy)}[/]" if finding.remedy else ""
            table.add_row(level, finding.name, escape(finding.finding) + remedy)
        print_table(table)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of deploy/SETTINGS.md.")] = False,
) -> None:
    """Show all settings and what they are set to."""
    if markdown:
        typer.echo(settings_table())
        return
    current = load_settings()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("variable", "value", "meaning"):
        table.add_column(column, no_wrap=column == "variable")
    for row in settings_rows(current):
        table.add_row(*(escape(cell) for cell in row))
    print_table(table)


def _findings() -> list[Check]:
    try:
        current = load_settings()
        health = Health(current, PATIENCE_SECONDS)
    except ConfigError as error:
        return [WRONG_SETTING.found(finding=line) for line in str(error).split("\n")]
    redis = connect(current)
    try:
        here = [*_handlers(), *_settings(current)]
        return [*here, *health.check(), *handlers.check(redis), *watch.check(current, redis), *_rejected(redis)]
    finally:
        health.close()
        redis.close()


def _handlers() -> list[Check]:
    """What `jobhook work` would refuse at its start: found out by a process of its own, as handlers run there."""
    try:
        ended = subprocess.run(workers_command("--check"), capture_output=True, timeout=IMPORT_SECONDS, check=False)  # noqa: S603 - our own
    except subprocess.TimeoutExpired:
        return [_COMPLETE, WRONG_HANDLERS.found(finding=f"not imported within {IMPORT_SECONDS:g} s")]
    if ended.returncode == 0 and ended.stdout:
        return [Check("settings", "ok", "complete, handlers included")]
    refused = ended.stdout.decode("utf-8", "replace").strip().splitlines()
    died = f"importing them ends the process (exit code {ended.returncode})"
    return [_COMPLETE, *(WRONG_HANDLERS.found(finding=line) for line in refused or [died])]


def _settings(current: Settings) -> list[Check]:
    findings = [IGNORED_SETTING.found(note=note) for note in notes()]
    if not current.require_https:
        findings.append(PLAIN_HTTP.found())
    return findings


def _rejected(redis: "Redis") -> Iterator[Check]:
    """Not among the checks of `/readyz`: anybody can have a delivery refused."""
    kept = RejectedDeliveries(redis)
    with suppress(RedisError):  # of Redis the checks of health have told
        if newest := next(kept.newest(), None):
            yield REJECTED.found(number=kept.count(), when=local(newest.received))
