"""`jobhook alive`: the liveness check of a container in which the workers run."""

import typer

from app.cli.output import errors
from app.config.sources import load_settings
from app.ops.pulse import beats


def alive() -> None:
    """Check that the supervisor of the workers on this machine goes on; exit with 1 if not. Asks no Redis."""
    found = beats(load_settings().redis_url)
    if not found:
        errors.print("No supervisor of workers runs here: start `jobhook work`.")
        raise typer.Exit(1)
    if stuck := [beat for beat in found if not beat.is_recent]:
        for beat in stuck:
            errors.print(f"The supervisor with pid {beat.pid} has not gone on for {beat.seconds_ago:.0f} s.")
        raise typer.Exit(1)
    typer.echo("Alive: " + ", ".join(f"supervisor {beat.pid}, {beat.seconds_ago:.1f} s ago" for beat in found))
