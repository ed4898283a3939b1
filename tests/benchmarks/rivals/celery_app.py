"""Celery: a task that does nothing; run as a script, it enqueues as many as its argument says."""

import os
import sys

from celery import Celery  # type: ignore[import-not-found]

app = Celery("rival", broker=os.environ["REDIS_URL"], broker_connection_retry_on_startup=True)


@app.task(ignore_result=True, name="nothing")  # type: ignore[untyped-decorator]
def nothing(body: str) -> None:
    """Wants every event."""


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        nothing.delay("x" * 700)
