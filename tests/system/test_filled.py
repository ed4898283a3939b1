"""`jobhook capacity`, held against a server filled with deliveries that were worked to their end."""

import pytest

from app.cli.embedded import EmbeddedServer
from app.ops.capacity import SECONDS_A_DAY, Load, memory
from tests.support import wait_until
from tests.support.deliveries import accept_all, received
from tests.support.stack import MakeStack

EVENTS = 2500
BATCH = 250
TOLERANCE = 0.2


def body(n: int, size: int) -> bytes:
    head = b'{"id":"evt_%08d","type":"test.ok","created_at":"2026-03-03T09:00:00Z","data":{"id":"job_%08d","notes":"'
    begin = head % (n, n)
    return begin + b"x" * (size - len(begin) - 3) + b'"}}'


@pytest.mark.parametrize("size", [400, 6000])
def test_the_memory_of_an_event_is_as_foretold(own_server: EmbeddedServer, make_stack: MakeStack, size: int) -> None:
    stack = make_stack(own_server.url)
    redis = stack.redis
    redis.config_set("appendfsync", "everysec")  # how fast it is filled does not matter to memory
    settings = stack.settings.model_copy(update={"durability": "memory"})
    stack.start_workers()
    accept_all(settings, received(body(EVENTS, size)))  # what comes with the first one is of no event
    wait_until(lambda: redis.zcard("jobhook:done") == 1, "the first event to be done")
    before = int(redis.info("memory")["used_memory"])
    for begin in range(0, EVENTS, BATCH):
        accept_all(settings, *(received(body(n, size)) for n in range(begin, begin + BATCH)))
    wait_until(lambda: redis.zcard("jobhook:done") == EVENTS + 1, "all to be done")
    for key in redis.scan_iter("effects:*", count=1000):  # of the tests' handlers, not of Jobhook
        redis.delete(key)
    used = int(redis.info("memory")["used_memory"]) - before
    a_day = Load(EVENTS, size, SECONDS_A_DAY, SECONDS_A_DAY, handler_seconds=0, peak=1, api_calls=0)
    assert used == pytest.approx(memory(a_day), rel=TOLERANCE)
