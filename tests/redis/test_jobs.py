"""The contract with RQ: what our scripts write is what RQ's own enqueue writes."""

import asyncio
from datetime import datetime
from typing import cast

import rq.defaults
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from app.config.settings import Settings
from app.inbox import jobs
from app.receiver.intake import Intake
from tests.support.deliveries import delivery

TIMES = {b"created_at", b"enqueued_at"}


def enqueue_both(redis: "Redis", settings: Settings) -> tuple[str, str]:
    """An event's job written by Jobhook, and the same by RQ; their ids."""
    made = delivery(b"one")

    async def accept() -> None:
        intake = Intake(settings)
        await intake.accept(made)
        await intake.close()

    asyncio.run(accept())
    theirs = "f" * 32
    Queue(jobs.QUEUE, connection=redis, serializer=JSONSerializer).enqueue(
        jobs.FUNCTION,
        job_id=theirs,
        result_ttl=0,
        job_timeout=int(settings.handler_timeout) + jobs.TIMEOUT_MARGIN_SECONDS,
    )
    return made.id, theirs


def test_the_hash_is_the_one_that_rq_writes(redis: "Redis", settings: Settings) -> None:
    ours_id, theirs_id = enqueue_both(redis, settings)
    ours, theirs = (cast(dict[bytes, bytes], redis.hgetall(f"rq:job:{id}")) for id in (ours_id, theirs_id))
    assert ours.keys() == theirs.keys()
    same = ours.keys() - TIMES - {b"data"}  # which RQ compresses
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    for name in TIMES:  # RQ reads both
        assert datetime.fromisoformat(ours[name].decode()).utcoffset() is not None


def test_rq_reads_our_job_as_it_reads_its_own(redis: "Redis", settings: Settings) -> None:
    ours_id, theirs_id = enqueue_both(redis, settings)
    ours = Job.fetch(ours_id, connection=redis, serializer=JSONSerializer)
    theirs = Job.fetch(theirs_id, connection=redis, serializer=JSONSerializer)
    assert (ours.func_name, ours.args, ours.kwargs) == (jobs.FUNCTION, [], {})
    for name in ("func_name", "args", "kwargs", "origin", "timeout", "result_ttl", "ttl", "failure_ttl", "meta"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_status() == theirs.get_status()


def test_the_job_stands_where_rq_looks_for_it(redis: "Redis", settings: Settings) -> None:
    ours_id, theirs_id = enqueue_both(redis, settings)
    queue = Queue(jobs.QUEUE, connection=redis, serializer=JSONSerializer)
    assert queue.job_ids == [ours_id, theirs_id]
    assert redis.smembers("rq:queues") == {queue.key.encode()}


def test_the_prefix_is_rqs_own() -> None:
    assert rq.defaults.RQ_KEY_PREFIX == jobs.RQ_PREFIX
