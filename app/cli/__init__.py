"""The command `jobhook`."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import typer
from redis.exceptions import RedisError

from app import __version__
from app.cli import (
    alerts,
    audit,
    capacity,
    diagnose,
    doctor,
    document,
    erase,
    explain,
    export,
    handlers,
    inspect,
    keys,
    pause,
    rejected,
    run,
    send,
)
from app.cli import stats as statistics
from app.cli.alive import alive
from app.cli.dev import dev, local_env_file
from app.cli.output import accept_any_encoding, fail, program
from app.config.names import DEV, ENV_FILE
from app.config.sources import configured_names, override
from app.errors import ConfigError, JobhookError

EXIT_FAILURE, EXIT_CONFIG = 1, 2
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a full or broken disk says. (That a reader has gone is typer's to handle.)"""

app = typer.Typer(
    name="jobhook",
    help="Receives JobsiteOn's webhooks: verified, recorded durably, processed by RQ workers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run.serve)
app.command()(run.work)
app.command()(alive)
app.command()(dev)
app.command()(send.send)
app.command()(run.run)
app.command("handlers")(handlers.handlers_)
app.command()(inspect.events)
app.command()(inspect.event)
app.command()(inspect.replay)
app.command()(erase.discard)
app.command()(erase.erase)
app.command()(export.export)
app.command()(statistics.stats)
app.command()(audit.audit)
app.command("pause")(pause.pause_)
app.command()(pause.resume)
app.command()(explain.explain)
app.command("diagnose")(diagnose.diagnose_)
app.command()(rejected.rejected)
app.add_typer(keys.app)
app.command()(alerts.alerts)
app.command()(doctor.doctor)
app.command()(doctor.settings)
app.command()(capacity.capacity)
app.command()(document.openapi)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line. Exit codes: 1 it failed, 2 it was called or configured wrongly."""
    accept_any_encoding()
    _find_local_instance()
    try:
        app()
    except ConfigError as error:
        fail(str(error), EXIT_CONFIG)
    except JobhookError as error:
        fail(str(error), EXIT_FAILURE)
    except RedisError as error:
        fail(f"Redis cannot be used ({type(error).__name__}). See: {program()} doctor", EXIT_FAILURE)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _discard_output()
        fail(f"The output cannot be written: {error.strerror}.", EXIT_FAILURE)


def _discard_output() -> None:
    """What is still in the buffer, Python would try to write once more at the end, and exit with a code of its own."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _find_local_instance() -> None:
    """Where nothing is configured, the commands mean what `jobhook dev` runs in this folder."""
    if any(text.strip() for name, text in os.environ.items() if name.upper() == ENV_FILE):
        return
    local = local_env_file(Path.cwd())
    starts_its_own = {"dev", "--help", "--version"} & set(sys.argv[1:2])
    # What cannot be read is the command's to tell, as soon as it asks for the settings.
    with suppress(OSError, ConfigError):
        if local.is_file() and not starts_its_own and not {"JOBSITEON_API_KEY", "REDIS_URL"} & configured_names():
            override(ENV_FILE, str(local))
            override(DEV, "true")  # its handlers are registered with that
