"""The RQ job that stands for an event: "process the event of this job's id", nothing more.

RQ has no asyncio enqueue and no way to enqueue in the same atomic step as other writes, so Jobhook
writes the job's hash itself, in the Lua scripts that change an event's state. What is written is what
RQ 3.0's own `Queue.enqueue` writes with the JSON serializer; a contract test compares the two.

A job has no arguments: its id is the event's. So all jobs are alike, and the scripts copy one.
"""

import os
from datetime import UTC, datetime

import orjson

QUEUE = "jobhook"
FUNCTION = "workers.process.process"
RQ_PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq")  # as rq.defaults reads it; importing rq costs 10 MB here
TIMEOUT_MARGIN_SECONDS = 30
"""What a stock RQ worker allows over the handler timeout, which Jobhook enforces itself."""


def job(handler_timeout: float) -> bytes:
    """The fields of a job enqueued now, as a JSON list of names and values."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return orjson.dumps(
        [
            *("created_at", now, "enqueued_at", now),
            *("data", f'["{FUNCTION}", null, [], {{}}]', "description", f"{FUNCTION}()"),
            *("status", "queued", "origin", QUEUE, "result_ttl", "0"),
            *("timeout", str(int(handler_timeout) + TIMEOUT_MARGIN_SECONDS)),
            *("started_at", "", "ended_at", "", "last_heartbeat", "", "worker_name", "", "group_id", ""),
            *("success_callback_name", "", "failure_callback_name", "", "stopped_callback_name", ""),
        ]
    )
