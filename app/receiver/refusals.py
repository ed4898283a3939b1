"""Every HTTP answer other than 200 that the receiver gives, one class each."""

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


class NotFound(Refusal):
    """There is nothing at this path."""

    status, slug, title = 404, "not-found", "There is nothing here."
    closes = True


class MethodNotAllowed(Refusal):
    """Webhooks are delivered by POST; GET and HEAD find out whether this is where."""

    status, slug, title = 405, "method-not-allowed", "This method is not supported here."
    headers = ((b"allow", b"GET, HEAD, POST"),)
    closes = True


class ReadOnly(MethodNotAllowed):
    """What is not the webhook endpoint can be read, and nothing else."""

    headers = ((b"allow", b"GET, HEAD"),)


class BodyTooSlow(Refusal):
    """The body did not arrive in time."""

    status, slug, title = 408, "body-too-slow", "The body did not arrive in time."
    closes = True


class BodyTooLarge(Refusal):
    """The body is over JOBHOOK_MAX_BODY_BYTES."""

    status, slug, title = 413, "body-too-large", "The body is larger than is accepted here."
    closes = True


class ContentEncoded(Refusal):
    """The body is compressed or otherwise encoded, by a Content-Encoding or for the transfer."""

    status, slug, title = 415, "content-encoded", "Send the body as it is, without compression."
    headers = ((b"accept-encoding", b"identity"),)
    closes = True


class Malformed(Refusal):
    """What was sent is no request of HTTP/1.1, or one that could be read in two ways."""

    status, slug, title = 400, "malformed", "This is not a well-formed HTTP/1.1 request."
    closes = True


class HeadTooLarge(Refusal):
    """The head of the request, or its trailers, do not end."""

    status, slug, title = 431, "head-too-large", "The head of the request is too large."
    closes = True


class Unexpected(Refusal):
    """A flaw of ours, outside the webhook endpoint, which answers Unavailable instead."""

    status, slug, title = 500, "unexpected", "Something unexpected has gone wrong here."
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
"""Those of the webhook endpoint."""

ELSEWHERE: tuple[type[Refusal], ...] = (Malformed, NotFound, HeadTooLarge, Unexpected)
"""Those given before the endpoint is reached, or at other paths."""
