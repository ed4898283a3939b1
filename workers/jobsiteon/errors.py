"""Everything that a call of the API raises.

    ApiError                    the retry schedule applies, unless said otherwise
    ├── Unauthorized   401      permanent: the key is wrong or revoked
    ├── Forbidden      403      permanent: the key lacks the permission, or the address is not allow-listed
    ├── NotFound       404 410  permanent
    ├── Invalid        4xx      permanent: refused for what it says, by JobsiteOn or before it was sent
    ├── RateLimited    429      waits as long as was asked, and uses up no attempt
    ├── ServerError    5xx
    ├── Unreachable    -        no complete answer: network, TLS, timeouts; also 408 and 425
    └── BadResponse    -        an answer that is none: HTML, broken JSON, a redirect elsewhere
        └── TooMuch    -        permanent: a list or a handler that needs more requests than there can be

No message carries the key, an id, a query, or anything of what was sent or answered (P7).
"""

from app.errors import JobhookError
from workers.retry import Permanent, RetryAfter


class ApiError(JobhookError):
    """A call of JobsiteOn's API failed."""

    def __init__(self, what: str, status: int | None = None) -> None:
        Exception.__init__(self, what)  # not super(): RetryAfter, a base of one of them, takes seconds
        self.status = status
        """The HTTP status; None if there was no answer."""


class Unauthorized(ApiError, Permanent):
    """JobsiteOn does not know the key."""


class Forbidden(ApiError, Permanent):
    """The key may not do this."""


class NotFound(ApiError, Permanent):
    """There is no such thing, or no longer."""


class Invalid(ApiError, Permanent):
    """The request is refused for what it says; sending it again is useless."""


class RateLimited(ApiError, RetryAfter):
    """No more requests for the moment: JobsiteOn said so (429), or our own count of them."""

    counts = False

    def __init__(self, what: str, seconds: float, status: int | None = None) -> None:
        super().__init__(what, status)
        self.seconds = seconds
        """How long to wait."""


class ServerError(ApiError):
    """JobsiteOn failed."""

    def __init__(self, what: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(what, status)
        self.retry_after = retry_after
        """Seconds that JobsiteOn asked to wait, if it did."""


class Unreachable(ApiError):
    """There was no complete answer in time. What was asked for may have happened all the same."""

    def __init__(self, what: str, status: int | None = None, *, sent: bool = True) -> None:
        super().__init__(what, status)
        self.sent = sent
        """False if it is certain that JobsiteOn has not seen the request."""


class BadResponse(ApiError):
    """The answer is not what the API answers. What was asked for may have happened all the same."""


class TooMuch(BadResponse, Permanent):
    """What is asked for takes more requests than the rate limit will ever let through."""
