"""`python -m workers`: a supervisor and its workers.

`jobhook work` starts this file by its path, and with it the Jobhook that it is part of: by their names, `app` and
`workers` may be found in a folder of the user's, who may have packages of these names.
"""

import importlib
import sys
from pathlib import Path


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

if __name__ == "__main__":
    from app.config.sources import load_settings
    from app.errors import ConfigError

    try:
        load_settings()  # before RQ is imported: what it cannot use it says with a traceback
        from workers.supervisor import main

        main()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
