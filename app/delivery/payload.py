"""The JSON value of a body, and the business object in it."""

import json
from typing import Any, NamedTuple

import orjson

NESTED = ("data", "payload", "content", "object")
"""Under which names envelopes keep the business object."""


class Payload(NamedTuple):
    """What a body says."""

    value: Any
    """The JSON value; None if there is none that can be read."""
    strict: bool
    """Whether the body is JSON by the letter of RFC 8259."""


def read_payload(body: bytes) -> Payload:
    """The JSON value of a body.

    What orjson refuses by the letter of RFC 8259 (NaN, a BOM) gets a second chance with the standard
    library. With duplicate keys, both keep the last. Integers over 64 bits are read as floats.
    """
    try:
        return Payload(orjson.loads(body), True)  # by name, the second would cost half as much again
    except orjson.JSONDecodeError:
        try:
            return Payload(json.loads(body), strict=False)
        except (ValueError, RecursionError):
            return Payload(None, strict=False)


def parse(body: bytes) -> Any:
    """The JSON value of a body, or None if there is none that can be read."""
    return read_payload(body).value


def data_of(payload: Any) -> Any:
    """The business object of a payload: what is nested under `data` and the like, else the payload itself."""
    if isinstance(payload, dict):
        for name in NESTED:
            if isinstance(payload.get(name), dict):
                return payload[name]
    return payload
