"""Handlers that use the API, for the tests of it with real workers."""

from workers import on
from workers.event import Event
from workers.jobsiteon import AsyncJobsiteOn, JobsiteOn


@on("api.read")
def read(event: Event, jobsiteon: JobsiteOn) -> None:
    jobsiteon.contacts.get("con_1001")


@on("api.read_async")
async def read_async(event: Event, jobsiteon: AsyncJobsiteOn) -> None:
    await jobsiteon.contacts.get("con_1001")


@on("api.missing")
def read_what_is_not_there(event: Event, jobsiteon: JobsiteOn) -> None:
    jobsiteon.contacts.get("con_0000")


@on("api.write")
def write(event: Event, jobsiteon: JobsiteOn) -> None:
    jobsiteon.contacts.update("con_1001", {"notes": "from a handler"})
    event.once("note", lambda _: jobsiteon.contacts.update("con_1002", {"notes": "from a step"}))
    if event.attempt == 1:
        raise ConnectionError
