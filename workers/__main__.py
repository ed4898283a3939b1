"""`python -m workers`: a supervisor and its workers. With `--check`, only whether they could start.

`jobhook work` starts this file by its path, and with it the Jobhook that it is part of: by their names, `app` and
`workers` may be found in a folder of the user's, who may have packages of these names.
"""

import importlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

EXIT_FAILURE, EXIT_CONFIG = 1, 2


def _pin() -> None:
    """Makes `app` and `workers` the packages beside this file. Handlers may be in the current folder."""
    home = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, home)
    for name in ("app", "workers"):
        importlib.import_module(name)
    sys.path.remove(home)  # the first: nothing else is to be found there before its turn
    sys.path.append(str(Path.cwd()))


if not __package__:  # started by its path; so it is when multiprocessing starts a process for a handler
    _pin()

from app.config.sources import load_settings  # noqa: E402 - only now is it certain whose `app` that is
from app.errors import ConfigError, EventNotFound  # noqa: E402


def check() -> None:
    """Loads settings and handlers as a start would, and prints the handlers as a line of JSON.

    Whoever reads that line knows that importing them has not ended the process, with whatever exit code.

    Raises:
        ConfigError: something would stop it.
    """
    settings = load_settings()
    with redirect_stdout(sys.stderr):  # what a handler prints when it is imported is no finding
        from workers.loading import load  # noqa: PLC0415 - as below

        registry = load(settings)
        from app.ops.messenger import refuse_unusable  # noqa: PLC0415 - as below

        refuse_unusable(settings)
        from workers.known import described  # noqa: PLC0415 - as below
    print(json.dumps(described(registry)))  # noqa: T201 - for the command that has asked


def run_one() -> None:
    """Runs one handler once, for `jobhook run`: `--run HANDLER --file FILE`, or `--event ID`.

    Raises:
        JobhookError: there is no such handler, file or event.
    """
    load_settings()  # as below
    from workers.desk import main  # noqa: PLC0415

    main(*sys.argv[2:5])


def run() -> None:
    """Runs a supervisor until it is stopped.

    Raises:
        ConfigError: it cannot be started.
    """
    load_settings()  # before RQ is imported: what it cannot use it says with a traceback
    from workers.supervisor import main  # noqa: PLC0415

    main()


if __name__ == "__main__":
    only_checks = "--check" in sys.argv[1:]
    try:
        if "--run" in sys.argv[1:2]:
            run_one()
        else:
            check() if only_checks else run()
    except EventNotFound as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_FAILURE)
    except ConfigError as error:
        print(error, file=sys.stdout if only_checks else sys.stderr)
        sys.exit(EXIT_CONFIG)
