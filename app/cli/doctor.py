"""`jobhook doctor` and `jobhook settings`: is everything as it should be?"""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.output import LEVEL_STYLES, print_json, print_table
from app.config.settings import Settings
from app.config.sources import load_settings, notes
from app.config.table import settings_rows, settings_table
from app.errors import ConfigError
from app.inbox.inbox import connect
from app.ops.health import Check, check


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check settings, Redis, clock and workers; exit with 1 if something fails."""
    findings = list(_findings())
    if as_json:
        print_json([{"check": f.name, "level": f.level, "finding": f.finding, "remedy": f.remedy} for f in findings])
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
        redis = connect(current)
    except ConfigError as error:
        return [
            Check("settings", "fail", line, "set it in the environment or in .env") for line in str(error).split("\n")
        ]
    return [Check("settings", "ok", "complete"), *_settings(current), *check(current, redis)]


def _settings(current: Settings) -> list[Check]:
    findings = [Check("settings", "warn", note) for note in notes()]
    if not current.require_https:
        remedy = "unset JOBHOOK_REQUIRE_HTTPS: payloads are to be encrypted in transit"
        findings.append(Check("https", "warn", "plain HTTP is accepted", remedy))
    if current.previous_api_keys:
        number = len(current.previous_api_keys)
        remedy = "when the rotation is done, empty JOBSITEON_PREVIOUS_API_KEYS"
        findings.append(
            Check("keys", "warn", f"{number} previous key{'s' if number > 1 else ''} still accepted", remedy)
        )
    return findings
