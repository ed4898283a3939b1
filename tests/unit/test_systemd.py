"""The units of deploy/, as systemd itself judges them, and held against the code."""

import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from app.cli.run import SHUTDOWN_SECONDS
from app.config.settings import Settings
from app.inbox.inbox import LEASE_MARGIN_SECONDS
from tests.support.stack import KEY, ROOT

SERVICES = sorted((ROOT / "deploy").glob("*.service"))
MOST_EXPOSED = 2.0
"""Of 10, by `systemd-analyze security`: under 2 is as exposed as a service that needs the network has to be."""
SETTINGS = Settings(api_key=KEY)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_a_service_is_little_exposed(unit: Path) -> None:
    """P3."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze is installed")
    command = [program, "security", "--offline=true", "--no-pager", str(unit)]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"exposure level for \S+: ([\d.]+)", printed.stdout)
    if found is None:
        pytest.skip(f"systemd-analyze cannot judge it here: {printed.stderr.strip()}")
    assert float(found[1]) < MOST_EXPOSED


def _seconds(unit: str, name: str) -> float:
    parser = RawConfigParser(strict=False)
    parser.read(ROOT / "deploy" / unit, "utf-8")
    return parser.getfloat("Service", name)


def test_there_is_time_to_stop() -> None:
    """P6: for requests in hand and for handlers at work."""
    assert _seconds("jobhook-receiver.service", "TimeoutStopSec") > SHUTDOWN_SECONDS
    workers = _seconds("jobhook-workers.service", "TimeoutStopSec")
    assert workers > SETTINGS.handler_timeout + LEASE_MARGIN_SECONDS
