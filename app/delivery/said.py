"""What a delivery says, apart from how and when it is delivered: what a redelivery has in common with the first.

Senders write retries anew: with another attempt number, a later sending time, fewer `pending_webhooks`. What
may be about the business counts as said, or else a change could be taken for a repetition, and be lost.
"""

import re
from functools import lru_cache
from typing import Any

from app.delivery.envelope import TYPE_NAMES, UNKNOWN_TYPE
from app.delivery.payload import NESTED

_NAMES_REMEMBERED = 1024
_LONGEST_NAME = 40
"""Characters. A longer name speaks of something else, and is not worth remembering."""

_COUNTER_HEADS = frozenset({"attempt", "attempts", "retry", "retries", "redelivery", "redeliveries", "redelivered"})
_COUNTER_FILL = frozenset({"number", "num", "no", "count", "counter", "current", "is", "x", "delivery", "webhook"})
_COUNTER_WORDS = _COUNTER_HEADS | _COUNTER_FILL
_PENDING_WEBHOOKS = frozenset({"pending", "webhooks"})
"""Stripe's: how many endpoints have not answered yet."""
_COUNTER_DIGITS = 6

_DELIVERY_HEADS = _COUNTER_HEADS | {
    *("attempted", "retried", "tries", "delivery", "deliveries", "delivered", "sent", "resent", "webhook", "webhooks")
}
_DELIVERY_WORDS = (
    _DELIVERY_HEADS
    | _COUNTER_FILL
    | {
        *("id", "uuid", "guid", "at", "on", "time", "timestamp", "ts", "ms", "index", "event"),
        *("first", "last", "next", "max", "total", "left", "remaining", "pending"),
    }
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")

_EVENT = "event"
"""Where a flat payload may keep the event's own id, type and times together."""


def said_of_event(payload: Any, type: str) -> tuple[str, Any]:
    """What a delivery says under the event id that it names: its type and its business object.

    The business object is what is nested under `data` and the like. In a flat payload it is everything but
    the names that speak of the delivery.
    """
    if not isinstance(payload, dict):
        return type, payload
    said = {}
    is_nested = False
    for name in NESTED:  # not three comprehensions: every delivery comes this way
        if name in payload:
            value = said[name] = payload[name]
            is_nested = is_nested or (bool(value) and isinstance(value, dict))
    if not is_nested:
        return type, _without_delivery(payload)
    if type == UNKNOWN_TYPE:  # whatever is in the place of a type has been passed over, but it does say something
        said |= {name: payload[name] for name in TYPE_NAMES if name in payload and not isinstance(payload[name], dict)}
    return type, said


def said_of_value(payload: Any) -> Any:
    """What a delivery says that names no event: all of its payload, but for the retry counters at its top.

    Times count, and so does what only looks like a counter: a name such as `attempts` with anything but a count.
    """
    if not isinstance(payload, dict):
        return payload
    counters = [name for name in payload if _names_a_counter(name) and _is_count(payload[name])]
    if not counters or len(counters) == len(payload):  # a payload of nothing but counters says just these
        return payload
    return {name: value for name, value in payload.items() if name not in counters}


def _without_delivery(payload: dict[str, Any]) -> dict[str, Any]:
    said = {}
    for name, value in payload.items():
        if _names_the_delivery(name):
            if (rest := _rest_of_delivery(value)) is not None:
                said[name] = rest
        elif name == _EVENT and isinstance(value, dict):
            said[name] = {inner: value[inner] for inner in value if not _names_the_delivery(inner)}
        else:
            said[name] = value
    return said


def _rest_of_delivery(value: Any) -> Any:
    """What may be about the business though its name speaks of the delivery: an address in `delivery`, say."""
    if isinstance(value, dict):
        return {name: value[name] for name in value if not _belongs_to_a_delivery(name)} or None
    return value if isinstance(value, list) else None


def _names_a_counter(name: str) -> bool:
    words = _words(name)
    return words == _PENDING_WEBHOOKS or (not words.isdisjoint(_COUNTER_HEADS) and words <= _COUNTER_WORDS)


def _names_the_delivery(name: str) -> bool:
    return _belongs_to_a_delivery(name) and not _words(name).isdisjoint(_DELIVERY_HEADS)


def _belongs_to_a_delivery(name: str) -> bool:
    """Whether a name says nothing else where it is clear already that it is about a delivery: `id`, `at`, `count`."""
    words = _words(name)
    return bool(words) and words <= _DELIVERY_WORDS


def _words(name: str) -> frozenset[str]:
    """The words of `retry_count`, `retryCount`, `retry-count`."""
    return _split(name) if len(name) <= _LONGEST_NAME else frozenset()


@lru_cache(_NAMES_REMEMBERED)
def _split(name: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(name))


def _is_count(value: Any) -> bool:
    if isinstance(value, str):
        return value.isdecimal() and len(value) <= _COUNTER_DIGITS
    return isinstance(value, int) and 0 <= value < 10**_COUNTER_DIGITS
