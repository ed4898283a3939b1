"""Handlers that use the API: real workers, and the simulator over real HTTP."""

from collections.abc import Iterator

import pytest

from app.cli.embedded import EmbeddedServer
from app.simulator import Api, serve
from tests.support import wait_until
from tests.support.deliveries import queue_events
from tests.support.inbox import age
from tests.support.stack import KEY, MakeStack, Stack

WINDOW_SECONDS, LIMIT = 2, 100
"""JobsiteOn's 100 a minute, with a shorter minute."""


@pytest.fixture
def api() -> Api:
    return Api(KEY, LIMIT, WINDOW_SECONDS)


@pytest.fixture
def stack(server: EmbeddedServer, make_stack: MakeStack, api: Api) -> Iterator[Stack]:
    with serve(api) as served:
        yield make_stack(
            server.url,
            JOBHOOK_HANDLERS="tests.support.api_handlers",
            JOBSITEON_API_URL=f"{served.url}/v1",
            JOBHOOK_API_PLAIN_LOOPBACK="true",
            JOBHOOK_API_RATE_LIMIT=str(LIMIT),
            JOBHOOK_API_RATE_WINDOW=f"{WINDOW_SECONDS}s",
        )


def test_four_workers_together_keep_to_the_limit(stack: Stack, api: Api) -> None:
    """300 events, each with a request: never over 100 in any window, and all are done."""
    events = 300
    queue_events(stack.settings, events, "api.read")
    stack.start_workers(4)
    wait_until(lambda: stack.inbox.stats().states["done"] == events, "all events", patience=80)
    assert api.most_in_window(WINDOW_SECONDS) <= LIMIT
    assert len(api.statuses()) == events
    assert set(api.statuses()) <= {200, 304}  # no 429, so none of them twice


def test_waiting_for_the_limit_uses_up_no_attempt(stack: Stack, api: Api) -> None:
    stack.start_workers(2, JOBHOOK_MAX_ATTEMPTS="1", JOBHOOK_API_RATE_LIMIT="2", JOBHOOK_API_RATE_WINDOW="3s")
    ids = queue_events(stack.settings, 5, "api.read_async")
    wait_until(lambda: stack.inbox.stats().states["done"] == 5, "all events")
    assert max(stack.inbox.get(id).token for id in ids) > 1
    assert {len(stack.inbox.get(id).attempts) for id in ids} == {1}


def test_an_answer_that_no_retry_will_change_is_final(stack: Stack, api: Api) -> None:
    stack.start_workers()
    (id,) = queue_events(stack.settings, 1, "api.missing")
    assert stack.wait_for(id, "dead").attempts[0]["error"]["type"] == "workers.jobsiteon.errors.NotFound"
    assert api.statuses() == [404]


def test_writes_carry_the_key_of_their_step(stack: Stack, api: Api) -> None:
    """P5: and what was answered is not written again when the handler is tried again."""
    stack.start_workers()
    (id,) = queue_events(stack.settings, 1, "api.write")
    stack.wait_for(id, "retrying")
    age(stack.inbox, "retrying", id)
    stack.wait_for(id, "done")
    keys = [(seen.path.rsplit("/", 1)[1], seen.idempotency_key) for seen in api.seen]
    assert [path for path, _ in keys] == ["con_1001", "con_1002"]
    assert keys[0][1] != keys[1][1]
    assert all(key for _, key in keys)
