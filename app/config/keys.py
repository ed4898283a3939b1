"""What tells JobsiteOn's keys apart without telling a key: its fingerprint and what it is to us."""

import hashlib
from typing import NamedTuple

from app.config.settings import Settings

CURRENT, PREVIOUS = "current", "previous"
FINGERPRINT_BYTES = 6
"""Enough to tell a deployment's keys apart, and too few to be any help in forging what they sign."""

_PURPOSE = b"jobhook: fingerprint of a key"


class SigningKey(NamedTuple):
    """A configured key, without the key."""

    name: str
    """`current`, `previous 1`, `previous 2` and so on, as in `jobhook diagnose`."""
    role: str
    """`current` or `previous`."""
    fingerprint: str


def fingerprint(key: bytes) -> str:
    """A keyed hash of a key, in hex. It may be stored, logged and shown."""
    return hashlib.blake2b(key, key=_PURPOSE, digest_size=FINGERPRINT_BYTES).hexdigest()


def signing_keys(settings: Settings) -> tuple[SigningKey, ...]:
    """Those that deliveries are verified with, in the order of `Settings.signing_keys`."""
    current, *previous = map(fingerprint, settings.signing_keys)
    return (
        SigningKey(CURRENT, CURRENT, current),
        *(SigningKey(f"{PREVIOUS} {number}", PREVIOUS, made) for number, made in enumerate(previous, 1)),
    )
