"""The webhook endpoint: guards, signature, envelope, intake, answer; in that order (P3).

It is a plain ASGI callable. FastAPI's own request handling (dependencies, validation, response
models) would cost more than all of this together, and none of it applies: the body is bytes, and
nothing in it is ever refused.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import orjson
import structlog
from starlette.types import Receive, Scope, Send

from app.config.keys import SigningKey
from app.config.settings import Settings
from app.delivery.envelope import Envelope, Reader
from app.delivery.identity import identify
from app.delivery.payload import read_payload
from app.errors import BadSignature, describe
from app.inbox.record import Delivery
from app.ops.metrics import Metrics
from app.receiver.body import BodyReader, Disconnected
from app.receiver.guards import Client, Gate, refuse_encoded
from app.receiver.intake import Intake, Receipt
from app.receiver.keys import Keys
from app.receiver.refusals import MethodNotAllowed, NotFound, Refusal, Unauthentic, Unavailable
from app.receiver.rejections import Rejections

PATH = "/webhooks/jobsiteon"
PATHS = frozenset({PATH, PATH + "/"})
"""Both spellings are the endpoint: a redirect from one to the other would lose the delivery."""

_KEPT_HEADERS = {b"content-type": "content-type", b"user-agent": "user-agent"}
_KEPT_LENGTH = 200
_TRIES = frozenset({"GET", "HEAD"})
_LISTENING = b'{"status":"listening"}'

log = structlog.stdlib.get_logger(__name__)


class RequestHeaders:
    """The headers of a request, of which few are repeated."""

    __slots__ = ("_last", "_pairs")

    def __init__(self, scope: Scope) -> None:
        self._pairs: list[tuple[bytes, bytes]] = scope["headers"]
        self._last: dict[bytes, bytes] = dict(self._pairs)

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        if len(self._last) == len(self._pairs):
            return [self._last[name]] if name in self._last else []
        return [value for found, value in self._pairs if found == name]

    def joined(self, name: bytes) -> bytes:
        """The values of a list header as one (RFC 9110, 5.3); empty if it is missing."""
        if len(self._last) == len(self._pairs) or name not in self._last:
            return self._last.get(name, b"")
        return b",".join(self.all(name))


class Receiver:
    """Answers webhook deliveries."""

    def __init__(
        self, settings: Settings, keys: Keys, intake: Intake, metrics: Metrics, rejections: Rejections
    ) -> None:
        self._keys = keys
        self._intake = intake
        self._rejections = rejections
        self._metrics = metrics
        self._log = log.bind()  # assembled now, not at each line
        self._gate = Gate(settings)
        self._bodies = BodyReader(settings.max_body_bytes)
        self._reader = Reader(settings.envelope_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["method"] in _TRIES:
            await self._try(scope, send)
            return
        begun = perf_counter()
        try:
            receipt, envelope, client, size = await self._receive(scope, receive)
        except Disconnected:
            return
        except Refusal as refusal:
            await self._refuse(scope, send, refusal)
            return
        except Exception as error:  # noqa: BLE001 - the last line of defence
            # A flaw of ours must not cost the sender its delivery: it is asked to send again (P6).
            log.critical("unexpected error", **describe(error))
            await self._refuse(scope, send, Unavailable())
            return
        status = "duplicate" if receipt.status == "revived" else receipt.status
        body = f'{{"status":"{status}","id":"{receipt.id}"}}'.encode()
        await _respond(
            send,
            200,
            [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            body,
        )
        elapsed = perf_counter() - begun
        self._metrics.acknowledged(elapsed)
        self._log.info(
            "delivery",
            status=receipt.status,
            id=receipt.id,
            type=envelope.type,
            bytes=size,
            client=client.address,
            ms=round(elapsed * 1000, 1),
        )

    async def nowhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request to a path at which there is nothing."""
        try:
            self._admit(scope, RequestHeaders(scope))
        except Refusal as refusal:
            await self._refuse(scope, send, refusal)
        else:
            await _answer(scope, send, NotFound())

    async def _try(self, scope: Scope, send: Send) -> None:
        """Answers a sender that finds out, when the webhook is registered, whether there is anything at its URL."""
        try:
            client = self._admit(scope, RequestHeaders(scope))
        except Refusal as refusal:
            await self._refuse(scope, send, refusal)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_LISTENING)).encode())]
        await _respond(send, 200, headers, b"" if scope["method"] == "HEAD" else _LISTENING)
        self._log.info("tried", method=scope["method"], client=client.address)

    def _admit(self, scope: Scope, headers: RequestHeaders) -> Client:
        return self._gate.admit(scope, headers.joined(b"x-forwarded-for"), headers.joined(b"x-forwarded-proto"))

    async def _receive(self, scope: Scope, receive: Receive) -> tuple[Receipt, Envelope, Client, int]:
        headers = RequestHeaders(scope)
        client = self._admit(scope, headers)
        if scope["method"] != "POST":
            raise MethodNotAllowed
        refuse_encoded(headers.joined(b"content-encoding"), headers.joined(b"transfer-encoding"))
        body = await self._bodies.read(receive, headers.joined(b"content-length"))
        try:
            signer = self._keys.ring.verify(
                headers.all, body, scope["method"], scope["raw_path"], scope["query_string"]
            )
        except BadSignature as bad:
            self._metrics.unauthentic(bad.fault)
            self._rejections.note(scope, body, client.address, bad.fault)
            raise Unauthentic(bad.fault) from None
        envelope, delivery = read_delivery(self._reader, headers.joined, body, client.address, signer)
        receipt = await self._intake.accept(delivery)
        return receipt, envelope, client, len(body)

    async def _refuse(self, scope: Scope, send: Send, refusal: Refusal) -> None:
        await _answer(scope, send, refusal)
        self._metrics.refused(refusal.slug)


def read_delivery(
    reader: Reader,
    joined: Callable[[bytes], bytes],
    body: bytes,
    client: str,
    signer: SigningKey,
    more: dict[str, Any] | None = None,
) -> tuple[Envelope, Delivery]:
    """What is to be recorded of a request whose signature has verified.

    `joined` gives the values of a header as one, `signer` is the key that signed it, `more` goes into the event's meta.
    """
    payload = read_payload(body)
    envelope = reader.read(payload.value)
    identity = identify(body, payload, envelope, reader.former_event_id(payload.value, envelope))
    meta = _meta(envelope, joined, client, signer)
    return envelope, Delivery(identity, orjson.dumps(meta | more if more else meta), body)


def _meta(envelope: Envelope, joined: Callable[[bytes], bytes], client: str, signer: SigningKey) -> dict[str, Any]:
    return {
        "type": envelope.type,
        "event_id": _shown(envelope.event_id),
        "resource": envelope.resource,
        "occurred_at": envelope.occurred_at,
        "client": client,
        "key": signer.role,
        "fingerprint": signer.fingerprint,
        "headers": {
            kept: value.decode("latin-1")[:_KEPT_LENGTH]
            for name, kept in _KEPT_HEADERS.items()
            if (value := joined(name))
        },
    }


def _shown(event_id: str | None) -> str | None:
    """An id as it can be stored and shown: of bounded length, and without lone surrogates."""
    return event_id[:_KEPT_LENGTH].encode("utf-8", "replace").decode() if event_id else None


async def _answer(scope: Scope, send: Send, refusal: Refusal) -> None:
    headers, body = refusal.response()
    await _respond(send, refusal.status, headers, body)
    peer = scope["client"]
    why = {"why": refusal.why} if refusal.why else {}
    log.warning("refused", reason=refusal.slug, **why, peer=peer[0] if peer else None)


async def _respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
