"""`python -m workers`: a supervisor and its workers. With `--check`, only whether they could start."""

import sys
from contextlib import redirect_stdout

from app.config.sources import load_settings
from app.errors import ConfigError
from workers.loading import load
from workers.supervisor import main

EXIT_CONFIG = 2


def check() -> None:
    """Loads settings and handlers as a start would, and prints what would stop it.

    Raises:
        SystemExit: something would.
    """
    try:
        with redirect_stdout(sys.stderr):  # what a handler prints when it is imported is no finding
            load(load_settings())
    except ConfigError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(EXIT_CONFIG)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        check()
    else:
        try:
            main()
        except ConfigError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(EXIT_CONFIG)
