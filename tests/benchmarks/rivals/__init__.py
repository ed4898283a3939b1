"""What else a user might pick, in Python or not: measured only when asked for, because it has to be installed.

It needs Node.js with npm, and installs into `.data/rivals`, apart from Jobhook's own packages.
"""

import os
import subprocess
import sys
from pathlib import Path

from app.cli.embedded import EmbeddedServer
from tests.benchmarks.processes import ROOT

HOME = ROOT / ".data" / "rivals"
_HERE = Path(__file__).parent
_NODE_PACKAGES = ("fastify@5.12.8", "bullmq@6.7.0", "ioredis@6.0.0")
_PYTHON_PACKAGES = ("celery[redis]==5.7.0", "taskiq==0.13.0", "taskiq-redis==1.2.4")
_PYTHON = str(HOME / "venv" / "bin" / "python")

FASTIFY = ("node", str(HOME / "receive.mjs"))
BULLMQ = ("node", str(HOME / "bullmq.mjs"))
CELERY = (_PYTHON, "-m", "celery", "-A", "celery_app", "worker", "-c", "1", "-l", "ERROR")
TASKIQ = (_PYTHON, "-m", "taskiq", "worker", "taskiq_app:broker", "-w", "1")


def install() -> None:
    """Installs the rivals, unless they are there."""
    HOME.mkdir(parents=True, exist_ok=True)
    for name in ("receive.mjs", "bullmq.mjs", "celery_app.py", "taskiq_app.py"):
        (HOME / name).write_text((_HERE / name).read_text())  # Node looks for packages beside the script
    if not (HOME / "node_modules").exists():
        _run("npm", "install", "--prefix", str(HOME), "--silent", "--no-audit", "--no-fund", *_NODE_PACKAGES)
    if not Path(_PYTHON).exists():
        _run(sys.executable, "-m", "venv", str(HOME / "venv"))
        _run(_PYTHON, "-m", "pip", "install", "--quiet", *_PYTHON_PACKAGES)


def fill(server: EmbeddedServer, number: int, *command: str) -> None:
    """Has a rival's own script enqueue so many jobs."""
    _run(*command, str(number), env=os.environ | {"REDIS_URL": server.url})


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env)
