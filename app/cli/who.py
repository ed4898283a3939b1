"""Who runs a command, for what is recorded of it."""

import getpass
import os
import socket


def who() -> str:
    """The login name of the system's user, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, a user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
