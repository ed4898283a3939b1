"""What authors of handlers test them with: the semantics are those of a worker (P5)."""

from typing import Any

import pytest

from workers import AsyncJobsiteOn, Event, JobsiteOn, RetryAfter
from workers.event import StepNotRun, StepRepeated
from workers.processor import NotRun
from workers.registry import Registry, registry
from workers.testing import event, run
from workers.testing.fixtures import Deliver, deliver

__all__ = ["deliver"]  # as a conftest.py has it


def test_a_step_that_has_finished_does_not_run_again() -> None:
    """P5."""
    ran: list[str] = []

    def book(event: Event) -> None:
        event.once("first", ran.append)
        if event.attempt == 1:
            raise RetryAfter(5)
        event.once("second", lambda key: {"n": len(ran), "key": bool(key)})

    paid = event("invoice.paid")
    with pytest.raises(RetryAfter):
        run(book, paid)
    assert len(ran) == 1
    assert run(book, paid) == {"first": None, "second": {"n": 1, "key": True}}
    assert run(book, paid) == {"first": None, "second": {"n": 1, "key": True}}
    assert len(ran) == 1
    with pytest.raises(RetryAfter):
        run(book, event("invoice.paid"))  # another event
    assert len(set(ran)) == len(ran) == 2


def test_handlers_of_an_event_have_steps_of_their_own() -> None:
    def one(event: Event) -> None:
        event.once("mail", lambda _: 1)

    def two(event: Event) -> None:
        event.once("mail", lambda _: 2)

    paid = event()
    assert (run(one, paid), run(two, paid)) == ({"mail": 1}, {"mail": 2})


def test_an_async_handler_runs() -> None:
    async def book(event: Event, *, jobsiteon: AsyncJobsiteOn) -> None:
        async def ask(_: str) -> object:
            return jobsiteon

        await event.once_async("ask", ask)

    assert run(book, event(), jobsiteon="a double") == {"ask": "a double"}


def test_what_would_fail_in_a_worker_fails() -> None:
    def twice(event: Event) -> None:
        for _ in range(2):
            event.once("same", lambda _: None)

    def idle(event: Event) -> None:
        _ = event.once_async("mail", lambda _: None)  # type: ignore[arg-type,return-value]

    def lazy(_: Event) -> Any:
        return (n for n in "ab")

    for handler, error in ((twice, StepRepeated), (idle, StepNotRun), (lazy, NotRun)):
        with pytest.raises(error):
            run(handler, event())


def test_an_event_is_read_as_one_that_is_delivered() -> None:
    made = event("job.completed", {"id": "job_7", "status": "done"})
    assert (made.type, made.resource, made.data["status"], made.attempt) == ("job.completed", "job/job_7", "done", 1)
    assert made.occurred_at
    assert made.id != event("job.completed").id
    assert event(body=b"not JSON").payload is None


def test_an_event_may_be_superseded() -> None:
    assert not event().superseded
    seen: list[bool] = []
    run(lambda event: seen.append(event.superseded), event(superseded=True))
    assert seen == [True]
    with pytest.raises(ValueError, match="tells no resource"):
        event(body=b"{}", superseded=True)


def test_what_a_handler_needs_has_to_be_given() -> None:
    def book(event: Event, jobsiteon: JobsiteOn) -> None: ...

    with pytest.raises(TypeError, match="needs jobsiteon: run"):
        run(book, event())
    with pytest.raises(TypeError, match="unexpected keyword"):
        run(book, event(), jobsiteon=None, more=1)


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setattr(registry, "handlers", [])
    return registry


def test_the_fixture_runs_all_that_want_an_event(handlers: Registry, deliver: Deliver) -> None:
    ran: list[str] = []

    @handlers.on("invoice.*")
    def one(_: Event, jobsiteon: JobsiteOn) -> None:
        ran.append(f"one {jobsiteon}")

    @handlers.on("*")
    def two(event: Event) -> None:
        ran.append("two")
        if event.attempt == 1:
            raise ValueError("at first")

    paid = event("invoice.paid")
    with pytest.raises(ValueError, match="at first"):
        deliver(paid, jobsiteon="double")
    assert deliver(paid, jobsiteon="double") is paid
    assert ran == ["one double", "two", "two"]


def test_the_fixture_fails_a_test_of_an_event_that_nobody_wants(handlers: Registry, deliver: Deliver) -> None:
    with pytest.raises(LookupError, match=r"wants invoice\.piad"):
        deliver("invoice.piad")
