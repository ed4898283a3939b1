"""Starts a program as systemd does that has opened its sockets: `python -m tests.support.activate 7,8 app serve`.

The numbers are those under which the sockets have been inherited. The program finds them from 3 on.
"""

import os
import sys

from app.cli.sockets import FIRST_PASSED


def main() -> None:
    """Becomes the program."""
    inherited = [os.dup(int(file)) for file in sys.argv[1].split(",")]
    for number, file in enumerate(inherited, FIRST_PASSED):
        os.dup2(file, number)
        os.set_inheritable(number, True)  # also if it was there already
    os.environ |= {"LISTEN_FDS": str(len(inherited)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web"}
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])  # noqa: S606 - our own module


if __name__ == "__main__":
    main()
