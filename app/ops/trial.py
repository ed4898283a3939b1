"""A delivery on trial: whether one sent now would be recorded, found out by recording one.

It goes the receiver's own way: the accept script and, behind it, what the plan waits for. Only the keys are others,
below the same prefixes, and are deleted in the same round trip. So whatever would refuse a delivery refuses this.
"""

import hashlib
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError, TimeoutError  # noqa: A004

from app.inbox import jobs
from app.inbox.record import Delivery
from app.inbox.scripts import PROBE, PROBE_PREFIX, PROBE_RQ_PREFIX
from app.ops.problems import NO_REPLICA_CONFIRMS, NO_WRITE, WRITE_REFUSED, Check, explain
from app.store.durability import Plan

KEPT_SECONDS = 60
"""The dedupe window on trial, and how long anything may be left of it."""
_NEW, _DEAD = "0" * 32, "1" * 32
_DIGEST, _OTHER = b"digest", b"another"
_CONFLICT = hashlib.sha1(_NEW.encode() + _OTHER, usedforsecurity=False).hexdigest()[: len(_NEW)]
_DELIVERIES = (
    Delivery(_NEW, _DIGEST, b"{}", b"{}"),
    Delivery(_NEW, _DIGEST, b"{}", b"{}"),  # a duplicate
    Delivery(_NEW, _OTHER, b"{}", b"{}"),  # a conflict
    Delivery(_DEAD, _DIGEST, b"{}", b"{}"),  # a dead event's redelivery
)
"""Between them they take every way through the script, so that each of its commands is tried."""
_EVENTS = (_NEW, _DEAD, _CONFLICT)
_KEYS = (
    *(PROBE_PREFIX + name for name in ("job", "open", "queued", "dead", "counts")),
    *(f"{PROBE_PREFIX}{kind}:{id}" for kind in ("seen", "event") for id in _EVENTS),
    *(f"{PROBE_RQ_PREFIX}:job:{id}" for id in _EVENTS),
    f"{PROBE_RQ_PREFIX}:queues",
    f"{PROBE_RQ_PREFIX}:queue:{jobs.QUEUE}",
)


def record_one(redis: "Redis", plan: Plan, seconds: float, slow_because: str = "") -> Check | None:
    """What would keep a delivery from being recorded as planned; None if nothing would.

    `redis` gives up after `seconds`. `slow_because` is what the server has said that would explain it.

    Raises:
        RedisError: the server cannot be reached.
    """
    try:
        commands, replies = _send(redis, plan, ("EVALSHA", PROBE.sha))
        if any(isinstance(reply, NoScriptError) for reply in replies):
            commands, replies = _send(redis, plan, ("EVAL", PROBE.text))
    except TimeoutError:
        return NO_WRITE.found(seconds=seconds, why=slow_because)
    asked = len(commands) - len(plan.waits)
    refused = [
        (command[0], reply)
        for command, reply in zip(commands[:asked], replies, strict=False)
        if isinstance(reply, Exception)
    ]
    if refused:
        # What the script says comes first: the commands before it only set the stage.
        command, error = max(refused, key=lambda one: one[0].startswith("EVAL"))
        return explain(WRITE_REFUSED, error, command)
    try:
        confirmed = plan.confirmed(replies[asked:])
    except ResponseError as error:
        return explain(WRITE_REFUSED, error, str(plan.waits[-1][0]))
    return None if confirmed else NO_REPLICA_CONFIRMS.found(seconds=seconds)


def _send(redis: "Redis", plan: Plan, call: tuple[str, str]) -> tuple[list[tuple[Any, ...]], list[Any]]:
    """The commands of a trial, and the reply or error to each."""
    event = f"{PROBE_PREFIX}event:{_DEAD}"
    arguments = (jobs.job(1), KEPT_SECONDS, *(field for delivery in _DELIVERIES for field in delivery))
    commands: list[tuple[Any, ...]] = [
        ("HSET", event, "state", "dead", "received", 0, "body", b"{}"),
        ("EXPIRE", event, KEPT_SECONDS),  # should DEL be refused
        ("SET", f"{PROBE_PREFIX}seen:{_DEAD}", _DIGEST, "EX", KEPT_SECONDS),
        (*call, 0, *arguments),
        ("DEL", *_KEYS),
        *plan.waits,
    ]
    with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        return commands, pipeline.execute(raise_on_error=False)
