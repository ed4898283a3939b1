"""Workers killed at random moments: every event is done, every effect happens once (P2, P5)."""

import os
import random
import signal
from collections import Counter
from typing import cast

from app.cli.embedded import EmbeddedServer
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.processes import children
from tests.support.stack import MakeStack, Stack

EVENTS, STEPS, KILLS = 200, 2, 15


def effects(stack: Stack) -> list[bytes]:
    """One entry for each time a step has run: event, step, idempotency key."""
    return cast(list[bytes], stack.redis.lrange("steps", 0, -1))


def test_every_step_of_every_event_has_its_effect_once(server: EmbeddedServer, make_stack: MakeStack) -> None:
    """P2, P5: but for a step cut in the middle, which is seen twice with the same key."""
    stack = make_stack(server.url)
    supervisor = stack.start_workers(2)
    moments = sorted(random.sample(range(1, EVENTS * STEPS - 20), KILLS))
    queue_events(stack.settings, EVENTS, "steps.two")
    killed = 0
    for moment in moments:
        wait_until(lambda moment=moment: len(effects(stack)) >= moment, f"effect {moment}")  # type: ignore[misc]
        if victims := children(supervisor.pid):
            os.kill(random.choice(victims), signal.SIGKILL)  # noqa: S311
            killed += 1
    wait_until(lambda: stack.inbox.stats().states["done"] == EVENTS, "all events", patience=60)

    seen = Counter(effects(stack))
    steps = Counter(entry.rsplit(b" ", 1)[0] for entry in seen)
    assert len(steps) == EVENTS * STEPS
    assert set(steps.values()) == {1}  # one key a step, also where it ran twice
    repeated = sum(seen.values()) - len(seen)
    assert killed >= KILLS / 2
    assert repeated <= killed  # at most the one step that each kill may have cut
    crashed = stack.inbox.stats().counts.get("attempts:crashed", 0)
    assert crashed <= killed
