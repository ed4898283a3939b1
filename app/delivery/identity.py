"""The names of a delivery, by which its redeliveries are recognised (P4). Every part comes from signed bytes."""

import hashlib
from typing import NamedTuple

from app.delivery.canonical import encode, is_certain
from app.delivery.envelope import Envelope
from app.delivery.payload import Payload
from app.delivery.said import said_of_event, said_of_value

ID_LENGTH = 32
"""Hex digits of an event's id: 128 bits."""
DIGEST_BYTES = 16


class Identity(NamedTuple):
    """Who a delivery is, in the inbox."""

    id: str
    """32 hex digits: the event's id, the same for every redelivery."""
    digest: bytes
    """Of what the delivery says: other digests under one id are of other events."""
    former_id: str
    """The id that the event had in releases that knew less; empty if that is the same."""
    bytes_digest: bytes
    """Of the body, byte by byte. In those releases it was the digest."""


def identify(body: bytes, payload: Payload, envelope: Envelope, former_event_id: str | None) -> Identity:
    """The identity of a delivery.

    With an event id, that is the name, and the digest is of the type and the business object. Without one, the
    name is the payload's value. Where two values could be confused, the bytes take the place of the value.
    """
    whole = hashlib.sha256(body).digest()
    canonical = canonical_form(body, payload, envelope)
    said = whole if canonical is None else hashlib.sha256(canonical).digest()
    event_id = envelope.event_id
    name, former_id = _name(said, event_id), ""
    if event_id is None or event_id != former_event_id:
        former_name = _name(whole, former_event_id)
        former_id = "" if former_name == name else _id(former_name)
    return Identity(_id(name), said[:DIGEST_BYTES], former_id, whole[:DIGEST_BYTES])


def canonical_form(body: bytes, payload: Payload, envelope: Envelope) -> bytes | None:
    """What a delivery says, in the one form of its value; None if that is not certain."""
    if not is_certain(body, payload):
        return None
    by_id = envelope.event_id is not None
    said = said_of_event(payload.value, envelope.type) if by_id else said_of_value(payload.value)
    try:
        return encode(said)
    except TypeError:
        return None


def _name(said: bytes, event_id: str | None) -> bytes:
    return b"body:" + said if event_id is None else b"event:" + event_id.encode("utf-8", "surrogatepass")


def _id(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:ID_LENGTH]
