"""Everything that Jobhook raises on purpose.

    JobhookError
    ├── ConfigError          the settings or the Redis they name cannot be used: refuse to start
    ├── BadSignature         no key known here has made the signature
    ├── EventNotFound        no record of that event (never received, or past its retention)
    ├── DamagedRecord        what is stored of an event cannot be read
    ├── RejectedNotFound     no rejected delivery of that id is kept
    └── Refusal              an HTTP answer other than 200 (app/receiver/refusals.py)
        ├── Malformed          400  not a request of HTTP/1.1
        ├── Unauthentic        401  missing, malformed, repeated, wrong or late signature
        ├── PlainHttp          403  not HTTPS
        ├── AddressNotAllowed  403  the client is not in JOBHOOK_ALLOWED_IPS
        ├── NotFound           404
        ├── MethodNotAllowed   405
        ├── BodyTooSlow        408
        ├── BodyTooLarge       413
        ├── ContentEncoded     415
        ├── HeadTooLarge       431
        ├── Unexpected         500  a flaw of ours outside the webhook endpoint
        └── Unavailable        503  our own trouble: the sender is asked to send again

No message carries a key, a signature or any part of a payload.
"""

import traceback
from typing import Literal

SignatureFault = Literal[
    "no header",
    "two headers",
    "malformed header",
    "looks like MD5",
    "looks like SHA-1",
    "looks like SHA-256",
    "looks like SHA-384",
    "looks like SHA-512",
    "no timestamp",
    "no id",
    "unusable id",
    "ambiguous body",
    "empty body",
    "no key fits",
    "unreadable timestamp",
    "timestamp out of tolerance",
]
"""Why a signature is refused, in words that quote nothing of the request: for logs, metrics and the operator, never
for the answer. `empty body` is `no key fits` for a request without a body."""


class JobhookError(Exception):
    """Base of all errors that Jobhook raises on purpose."""


class ConfigError(JobhookError):
    """The service cannot start with these settings. The message is one line a setting."""


class BadSignature(JobhookError):
    """The signature is missing, malformed, repeated, wrong or late: no key known here has made it in time."""

    def __init__(self, fault: SignatureFault) -> None:
        super().__init__(fault)
        self.fault: SignatureFault = fault


class EventNotFound(JobhookError):
    """No record of the event is kept."""


class DamagedRecord(JobhookError):
    """What is stored of an event is no record: a field is missing, or is not what it has to be."""


class RejectedNotFound(JobhookError):
    """No rejected delivery of that id is kept."""


def describe(error: BaseException) -> dict[str, str]:
    """What may be logged of any error: its type and where it was raised.

    Its message is left out, because the message of a foreign error often quotes a payload.
    """
    frames = traceback.extract_tb(error.__traceback__)
    described = {"error": f"{type(error).__module__}.{type(error).__qualname__}"}
    if frames:
        described["where"] = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}"
    return described
