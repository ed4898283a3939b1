"""`python -m workers`: a supervisor and its workers."""

import sys

from app.errors import ConfigError
from workers.supervisor import main

if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
