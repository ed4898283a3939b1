"""A client of JobsiteOn's API that keeps to its rules: HTTPS only, validated answers, the rate limit, caching.

    jobsiteon = JobsiteOn(settings)
    contact = jobsiteon.contacts.get("con_1001")        # or jobsiteon.get("/contacts/con_1001")
    for invoice in jobsiteon.invoices.list(status="overdue"):   # fetches page after page
        jobsiteon.invoices.update(invoice["id"], {"notes": "reminded"})

`AsyncJobsiteOn` is the same with `await` and `async for`. What can go wrong is in `errors`.
"""

from workers.jobsiteon.aio import AsyncJobsiteOn
from workers.jobsiteon.client import JobsiteOn
from workers.jobsiteon.errors import (
    ApiError,
    BadResponse,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    ServerError,
    TooMuch,
    Unauthorized,
    Unreachable,
)

__all__ = [
    "ApiError",
    "AsyncJobsiteOn",
    "BadResponse",
    "Forbidden",
    "Invalid",
    "JobsiteOn",
    "NotFound",
    "RateLimited",
    "ServerError",
    "TooMuch",
    "Unauthorized",
    "Unreachable",
]
