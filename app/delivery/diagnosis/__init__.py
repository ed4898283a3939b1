"""Why a request's signature does not verify, and which settings make it: found out from the request and the keys.

Pure and offline. What is said names headers, settings and keys by their names; it never holds a key, a MAC or a
part of the body.
"""

from app.delivery.diagnosis.causes import Cause
from app.delivery.diagnosis.clues import signature_headers
from app.delivery.diagnosis.diagnose import Diagnosis, Match, diagnose
from app.delivery.diagnosis.keys import TYPED, Key, named
from app.delivery.diagnosis.request import RawRequest, UnreadableRequest, parse_request

__all__ = [
    "TYPED",
    "Cause",
    "Diagnosis",
    "Key",
    "Match",
    "RawRequest",
    "UnreadableRequest",
    "diagnose",
    "named",
    "parse_request",
    "signature_headers",
]
