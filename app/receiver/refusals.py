"""Every HTTP answer other than 200 that the webhook endpoint gives, one class each."""

from typing import ClassVar

import orjson

from app.errors import JobhookError, SignatureFault

RETRY_AFTER_SECONDS = 5
"""What a 503 asks of the sender: longer than a Redis restart, short enough to lose no time."""

PROBLEM_TYPE_BASE = "urn:jobhook:problem:"


class Refusal(JobhookError):
    """An HTTP answer other than 200, rendered as `application/problem+json` (RFC 9457).

    The class is the whole message: what a client is told depends on nothing it sent.
    """

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]
    headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()
    closes: ClassVar[bool] = False
    """Whether the connection ends with the answer, because the body was not read to its end."""

    why: str | None = None
    """What the log says beyond `slug`, in words that quote nothing of the request; never part of the answer."""

    @classmethod
    def problem(cls) -> dict[str, str | int]:
        """The RFC 9457 document of this refusal."""
        return {"type": PROBLEM_TYPE_BASE + cls.slug, "title": cls.title, "status": cls.status}

    @classmethod
    def response(cls) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of the answer."""
        body = orjson.dumps(cls.problem())
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            *cls.headers,
        ]
        if cls.closes:
            headers.append((b"connection", b"close"))
        return headers, body


class Unauthentic(Refusal):
    """The signature is missing, malformed, repeated, wrong or late: the same answer for all of them."""

    status, slug, title = 401, "unauthentic", "The request is not signed with a key known here."
    headers = ((b"www-authenticate", b'HMAC header="X-Signature"'),)

    def __init__(self, why: SignatureFault) -> None:
        super().__init__()
        self.why = why


class PlainHttp(Refusal):
    """The request did not come over HTTPS."""

    status, slug, title = 403, "https-required", "Use HTTPS."
    closes = True


class AddressNotAllowed(Refusal):
    """The client's address is not allow-listed."""

    status, slug, title = 403, "address-not-allowed", "Requests from this address are not accepted."
    closes = True


class MethodNotAllowed(Refusal):
    """Webhooks are delivered by POST."""

    status, slug, title = 405, "method-not-allowed", "Send a POST request."
    headers = ((b"allow", b"POST"),)
    closes = True


class BodyTooSlow(Refusal):
    """The body did not arrive in time."""

    status, slug, title = 408, "body-too-slow", "The body did not arrive in time."
    closes = True


class BodyTooLarge(Refusal):
    """The body is over JOBHOOK_MAX_BODY_BYTES."""

    status, slug, title = 413, "body-too-large", "The body is larger than is accepted here."
    closes = True


class ContentEncoded(Refusal):
    """The body is compressed or otherwise encoded."""

    status, slug, title = 415, "content-encoded", "Send the body without a Content-Encoding."
    headers = ((b"accept-encoding", b"identity"),)
    closes = True


class Unavailable(Refusal):
    """The delivery could not be recorded durably in time; nothing is wrong with it."""

    status, slug, title = 503, "unavailable", "The delivery could not be recorded. Send it again."
    headers = ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),)


REFUSALS: tuple[type[Refusal], ...] = (
    Unauthentic,
    PlainHttp,
    AddressNotAllowed,
    MethodNotAllowed,
    BodyTooSlow,
    BodyTooLarge,
    ContentEncoded,
    Unavailable,
)
