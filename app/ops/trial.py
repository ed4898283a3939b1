"""A delivery on trial: whether one sent now would be recorded, found out by recording one (P9).

It goes the receiver's own way: the accept script, and then what the plan waits for. Only the keys are others, below
the same prefixes, and are deleted by the script itself. So whatever would refuse a delivery refuses this.
"""

from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as NotInTime

from app.config.settings import Settings
from app.delivery.identity import Identity
from app.inbox.inbox import accept_arguments
from app.inbox.record import Delivery
from app.inbox.scripts import PROBE
from app.ops.problems import NO_REPLICA_CONFIRMS, NO_WRITE, WRITE_REFUSED, Check, explain
from app.store.durability import Plan

KEPT_SECONDS = 60
"""How long anything may be left of a trial if deleting it is refused."""
_LARGE = bytes(16385)
"""A body that is too long to be kept where it is another form of one that is known."""

_META = b'{"type":"trial","resource":"trial"}'


def _delivery(id: str, says: bytes, body: bytes, former_id: str = "") -> Delivery:
    return Delivery(Identity(id, says, former_id, body[:16]), _META, body)


_DELIVERIES = (
    _delivery("new", b"one thing", b"{}", former_id="of a release before"),
    _delivery("new", b"one thing", b"{}"),  # the same bytes again
    _delivery("new", b"one thing", b"{ }"),  # written anew
    _delivery("new", b"one thing", _LARGE),
    _delivery("new", b"another thing", b"[]"),  # a conflict
    _delivery("dead", b"one thing", b""),  # a dead event's redelivery, which revives it
)
"""Between them they take every way through the script, so that each of its commands is tried."""


def record_one(settings: Settings, redis: "Redis", plan: Plan, seconds: float, slow_because: str = "") -> Check | None:
    """What would keep a delivery from being recorded as planned; None if nothing would.

    `redis` gives up after `seconds`. `slow_because` is what the server has said that would explain it.

    Raises:
        RedisError: the server cannot be reached.
    """
    shortly = settings.model_copy(update={"dedupe_window": KEPT_SECONDS, "retention": KEPT_SECONDS})
    arguments = accept_arguments(shortly, _DELIVERIES)
    try:
        recorded, *waited = _send(redis, ("EVALSHA", PROBE.sha, 0, *arguments), *plan.waits)
        if isinstance(recorded, NoScriptError):
            recorded, *waited = _send(redis, ("EVAL", PROBE.text, 0, *arguments), *plan.waits)
    except NotInTime:
        return NO_WRITE.found(seconds=seconds, why=slow_because)
    if isinstance(recorded, Exception):
        return explain(WRITE_REFUSED, recorded, "EVALSHA")
    try:
        confirmed = plan.confirmed(waited)
    except ResponseError as error:
        return explain(WRITE_REFUSED, error, str(plan.waits[-1][0]))
    return None if confirmed else NO_REPLICA_CONFIRMS.found(seconds=seconds)


def _send(redis: "Redis", *commands: tuple[Any, ...]) -> list[Any]:
    """The reply or error to each command, in one round trip."""
    with redis.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipeline.execute(raise_on_error=False)
