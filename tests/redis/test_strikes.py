"""A handler's time limit strikes in the middle of things, and nothing is damaged by it (P2)."""

import os
import subprocess
import sys

import pytest
from redis import Redis

from app.config.settings import Settings
from app.simulator.api import Api
from tests.support.servers import serve
from tests.support.stack import KEY, ROOT
from tests.support.world import TOKEN

STRIKES = 300
"""Of each kind: enough to crash in `pack` for certain. `python -m tests.support.strikes` takes any number."""


@pytest.mark.parametrize("kind", ["pack", "foreign", "redis", "api"])
def test_no_process_dies_of_it_and_no_connection_stays_in_use(redis: "Redis", settings: Settings, kind: str) -> None:
    with serve(Api(TOKEN, limit=10**6)) as served:
        environment = {
            "JOBSITEON_API_KEY": KEY,
            "JOBSITEON_API_TOKEN": TOKEN,
            "JOBSITEON_API_URL": f"{served.url}/v1",
            "JOBHOOK_API_PLAIN_LOOPBACK": "true",
            "JOBHOOK_API_RATE_LIMIT": "100000",
            "JOBHOOK_ENV_FILE": os.devnull,
            "REDIS_URL": settings.redis_url,
        }
        command = [sys.executable, "-m", "tests.support.strikes", kind, str(STRIKES)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "0"), ended.stderr
