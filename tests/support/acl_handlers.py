"""Handlers that need nothing of Redis themselves, for the test of what Jobhook needs of it."""

import os

from workers import Permanent, RetryAfter, on
from workers.event import Event
from workers.jobsiteon import JobsiteOn


@on("acl.ok", one_at_a_time="resource")
def succeed(event: Event) -> None:
    event.once("first", lambda _: 1)
    event.once("second", lambda _: 2)


@on("acl.again")
def fail_once(event: Event) -> None:
    if event.attempt == 1:
        raise RetryAfter(0)


@on("acl.dead")
def fail_for_good(event: Event) -> None:
    raise Permanent("no use")


@on("acl.crash")
def crash(event: Event) -> None:
    if event.attempt == 1:
        os._exit(3)


@on("acl.read")
def read(event: Event, jobsiteon: JobsiteOn) -> None:
    jobsiteon.contacts.get("con_1001")
    jobsiteon.contacts.update("con_1001", {"notes": "from a handler"})
