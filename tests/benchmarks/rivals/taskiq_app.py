"""taskiq: a task that does nothing; run as a script, it enqueues as many as its argument says."""

import asyncio
import os
import sys

from taskiq_redis import ListQueueBroker  # type: ignore[import-not-found]

broker = ListQueueBroker(url=os.environ["REDIS_URL"])


@broker.task(task_name="nothing")  # type: ignore[untyped-decorator]
async def nothing(body: str) -> None:
    """Wants every event."""


async def fill(number: int) -> None:
    """Enqueues so many."""
    await broker.startup()
    for _ in range(number):
        await nothing.kiq("x" * 700)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[1])))
