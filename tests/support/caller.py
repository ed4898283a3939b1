"""`python -m tests.support.caller N PATH`: a process that makes N calls, as a worker would."""

import sys
import time

from app.config.sources import load_settings
from workers.jobsiteon import JobsiteOn, RateLimited


def main(number: int, path: str) -> None:
    with JobsiteOn(load_settings()) as client:
        while number:
            try:
                client.get(path)
            except RateLimited as error:
                time.sleep(error.seconds)  # where a worker gives the event back to the inbox
            else:
                number -= 1


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
