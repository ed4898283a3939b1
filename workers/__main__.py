"""`python -m workers`: a supervisor and its workers. With `--check`, only whether they could start."""

import sys
from contextlib import redirect_stdout

from app.config.sources import load_settings
from app.errors import ConfigError

EXIT_CONFIG = 2


def check() -> None:
    """Loads settings and handlers as a start would.

    Raises:
        ConfigError: something would stop it.
    """
    settings = load_settings()
    with redirect_stdout(sys.stderr):  # what a handler prints when it is imported is no finding
        from workers.loading import load  # noqa: PLC0415 - as below

        load(settings)


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
        check() if only_checks else run()
    except ConfigError as error:
        print(error, file=sys.stdout if only_checks else sys.stderr)
        sys.exit(EXIT_CONFIG)
