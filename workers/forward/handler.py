"""The handler that forwards an event to one destination."""

import re
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from time import monotonic

from app import __version__
from workers.event import Event
from workers.forward.circuit import Circuit
from workers.forward.destination import Destination
from workers.forward.errors import CircuitOpen, DestinationUnreachable, ForbiddenAddress, Rejected, Throttled, TooLate
from workers.forward.network import HeaderPairs, Reply, post
from workers.forward.signer import Signer
from workers.retry import LONGEST_WAIT_SECONDS, Permanent, wait
from workers.retry_after import asked_by
from workers.timelimit import seconds_to_strike

_NOT_IN_A_HEADER = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")


class Forward:
    """Sends events to a destination. What an answer means:

    2xx                          done
    410                          given up: the destination wants no more (Standard Webhooks)
    429, 503 with Retry-After    again when it says, but no sooner than the schedule: an attempt was made, and counts
    any other, or none           again by the schedule

    No answer, 429 and 5xx count against the destination; after a few in a row its circuit opens. Any
    other answer shows that it is well, and that the fault is with the event or the settings.
    """

    def __init__(
        self,
        destination: Destination,
        signers: Sequence[Signer],
        circuit: Circuit,
        seconds: float,
        tls: ssl.SSLContext,
    ) -> None:
        self._destination = destination
        self._signers = signers
        self._circuit = circuit
        self._seconds = seconds
        self._tls = tls

    def __call__(self, event: Event) -> None:
        """Sends one event.

        Raises:
            ForwardError: it was not taken.
            RetryAfter: it is to be sent later.
            Permanent: it is not to be sent again.
        """
        deadline = monotonic() + self._seconds
        if seconds_to_strike() < self._seconds:
            raise TooLate(self._destination.name)
        if seconds := self._circuit.enter():
            raise CircuitOpen(self._destination.name, seconds)
        self._judge(self._post(event, deadline - monotonic()), event.attempt)

    def _post(self, event: Event, seconds: float) -> Reply:
        headers = self._headers(event, datetime.now(UTC))
        try:
            return post(self._destination.url, headers, event.body, seconds=seconds, tls=self._tls)
        except DestinationUnreachable as error:
            self._circuit.failed()
            raise DestinationUnreachable(f"{self._destination.name}: {error}") from None
        except ForbiddenAddress as error:
            raise ForbiddenAddress(f"{self._destination.name}: {error}") from None

    def _headers(self, event: Event, now: datetime) -> HeaderPairs:
        signatures = " ".join(signer.sign(event.id, now, event.body) for signer in self._signers)
        headers = {
            "content-type": event.content_type or "application/octet-stream",
            "user-agent": f"jobhook/{__version__}",
            "webhook-id": event.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signatures,
            "jobhook-event-type": event.type,
            "jobhook-attempt": str(event.attempt),
        }
        return [(name.encode(), _header_value(value)) for name, value in headers.items()]

    def _judge(self, answer: Reply, attempt: int) -> None:
        status, name = answer.status, self._destination.name
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._circuit.failed()
        else:
            self._circuit.succeeded()
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return
        if status == HTTPStatus.GONE:
            raise Permanent(f"{name} answered 410: it wants no more events")
        asked = asked_by(answer.retry_after, answer.date)
        if asked is not None and status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            # No sooner than the schedule: "Retry-After: 1" would use up all attempts in seconds.
            raise Throttled(name, status, min(max(asked, wait(attempt)), LONGEST_WAIT_SECONDS))
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise Rejected(f"{name} answered {status}: redirects are not followed, name the final URL")
        raise Rejected(f"{name} answered {status}")


def _header_value(text: str) -> bytes:
    """A value as HTTP allows it: the content type comes from a stranger's header."""
    return _NOT_IN_A_HEADER.sub(b"", text.encode("latin-1", "replace")).strip()
