"""A receiver and a Redis with a network in between: far away, and one that forgets idle connections."""

from time import monotonic

import httpx
import pytest

from app.cli.embedded import EmbeddedServer
from app.inbox.inbox import SOCKET_TIMEOUT_SECONDS
from tests.support import wait_until
from tests.support.proxy import proxied
from tests.support.stack import MakeStack

DEFAULT_ACK_BUDGET = "1s"
FORGOTTEN_AFTER_SECONDS = 3.0


@pytest.mark.parametrize("round_trip", [0.2, 0.4])
def test_a_receiver_starts_far_away_from_redis(
    server: EmbeddedServer, make_stack: MakeStack, round_trip: float
) -> None:
    """P6: its first delivery is accepted, and those that follow."""
    with proxied(server.port, delay=round_trip) as proxy:
        stack = make_stack(proxy.url, JOBHOOK_ACK_BUDGET=DEFAULT_ACK_BUDGET)
        stack.start_receiver()
        for n in range(5):
            stack.deliver_event("test.ok", f"evt_{n}")


def test_no_delivery_is_refused_for_a_connection_that_was_forgotten(
    server: EmbeddedServer, make_stack: MakeStack
) -> None:
    """P6, P9: nor does readiness wait for an answer that never comes."""
    with proxied(server.port, forgets_after=FORGOTTEN_AFTER_SECONDS) as proxy:
        stack = make_stack(proxy.url)
        stack.start_receiver()
        for n in range(2):
            until = monotonic() + n * (FORGOTTEN_AFTER_SECONDS + 0.5)
            wait_until(lambda: monotonic() >= until)  # noqa: B023 - called at once
            stack.deliver_event("test.ok", f"evt_{n}")
            ready = httpx.get(f"http://127.0.0.1:{stack.port}/readyz", timeout=SOCKET_TIMEOUT_SECONDS - 1)
            assert ready.status_code == 200
