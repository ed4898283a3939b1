"""The settings as tables: what there is, what it is set to, and the page that documents it."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticUndefined

from app.config.names import variable
from app.config.settings import DURATION, SIZE, Settings
from app.units import format_duration, format_size

THEMES = {
    "api_key": "Keys",
    "require_https": "Who may deliver",
    "redis_url": "Redis, and what a 200 means",
    "max_attempts": "Work",
    "forward_urls": "Forwarding",
    "alert_urls": "Alerts",
    "signature_header": "Signature",
    "host": "Processes and logs",
    "api_url": "JobsiteOn's API",
}
"""The field of `Settings` that each theme begins with; those after it belong to it too."""

_PASSWORD = re.compile(r"(?<=//)[^/]*(?=@)|(?<=password=)[^&]*")
"""In a URL."""


def settings_rows(settings: Settings | None = None) -> Iterable[tuple[str, str, str]]:
    """Variable, value and meaning of each setting; the defaults if no settings are given."""
    for field, info in Settings.model_fields.items():
        value = getattr(settings, field) if settings else info.default
        shown = "*required*" if value is PydanticUndefined else _shown(value, info.metadata)
        shown = _PASSWORD.sub("***", shown)
        yield variable(field), shown, info.description or ""


def settings_table() -> str:
    """The settings and their defaults in Markdown, a table for each theme, for deploy/SETTINGS.md."""
    beginnings = {variable(field): theme for field, theme in THEMES.items()}
    lines: list[str] = []
    for name, shown, meaning in settings_rows():
        if theme := beginnings.get(name):
            lines += ["", f"## {theme}", "", "| variable | default | meaning |", "|---|---|---|"]
        lines.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(lines[1:])


def _shown(value: Any, metadata: list[Any]) -> str:
    if value is None:
        return "*none*"
    if isinstance(value, tuple):
        return ", ".join(_shown(part, []) for part in value) or "*none*"
    if isinstance(value, bool):
        return str(value).lower()
    if DURATION in metadata:
        return format_duration(value)
    return format_size(value) if SIZE in metadata else str(value)
