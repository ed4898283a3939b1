"""`python -m workers`: a supervisor and its workers."""

import sys

from app.config.sources import load_settings
from app.errors import ConfigError

if __name__ == "__main__":
    try:
        load_settings()  # before RQ is imported: what it cannot use it says with a traceback
        from workers.supervisor import main

        main()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
