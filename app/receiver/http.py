"""How the receiver speaks HTTP: what uvicorn leaves to a load balancer, though there may be none.

What a request may look like is in `app/receiver/forms.py`, how long its body may be in `app/receiver/body.py`. Here
are the limits of size and time for what comes before and after the body (P3). uvicorn alone waits for the head of a
request for as long as it takes, keeps all of it however long it gets, and takes trailers for headers, so that a
stranger could add an `X-Forwarded-For` behind the load balancer's.
"""

import asyncio
from typing import Any, cast

from app.receiver.forms import AnyForm
from app.receiver.refusals import HeadTooLarge, Refusal

HEAD_SECONDS = 5.0
"""From the first byte of a request to the end of its headers. JobsiteOn gives up after as long."""
MAX_HEAD_BYTES = 64 * 1024
"""Of a head or of trailers, on top of what one read from the socket brings (256 KiB at most)."""
MAX_PIPELINED = 16
"""Requests of a connection that wait for the answer to an earlier one. uvicorn would read on at each answer, and so
keep any number: a stranger's 12 MB of them took 600. Load balancers send none."""
FIRST_REQUEST_SECONDS = 2.0
"""When the receiver is told to stop, a connection that has just been accepted has so long for its request: the
client is about to send one, and will not send it again."""
NEXT_REQUEST_SECONDS = 0.5
"""The same for a connection that was used before. Load balancers keep many of them, and the stop waits for all."""
LINGER_SECONDS = 1.0
"""After an answer that ends the connection, a client may go on sending for so long."""
MAX_DROPPED_BYTES = 4 * 1024**2
"""What it may send meanwhile."""


_ONE_TURN_SECONDS = 0.01
"""In which the event loop looks at its sockets at least once."""


class TooManyPipelined(Exception):
    """Stops the parser."""


class BoundedHeads(AnyForm):
    """An HTTP protocol with these limits. A request that comes in one piece costs no timer."""

    _unfinished = 0
    """Bytes received that were neither the end of a head nor part of a body."""
    _timer: asyncio.TimerHandle | None = None
    _stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gives a new connection as long as an idle one to begin with its request."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Takes in what has come, then looks whether the request gets on."""
        cycle, waited = self.cycle, self._waits_for_head()
        body = len(cycle.body) if cycle else 0
        super().data_received(data)
        if self._waits_for_head():
            if cycle is not self.cycle:  # the head before this one has come to its end
                self._unfinished = 0
                self._stop_timer()
            elif waited:  # not the first piece: it may have brought the end of a long body as well
                self._unfinished += len(data)
            self._timer = self._timer or self.loop.call_later(HEAD_SECONDS, self._give_up)
        elif waited or cycle is not self.cycle or len(cycle.body) > body:
            self._unfinished = 0
            self._stop_timer()
        else:
            self._unfinished += len(data)
        if self._unfinished > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.refuse(HeadTooLarge)

    def on_headers_complete(self) -> None:
        """Hands the headers over. What comes later is not among them."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyPipelined
        super().on_headers_complete()
        if self.parser.should_upgrade():
            if self._should_upgrade():  # the headers are needed once more
                return
            self.cycle.keep_alive = False  # what follows a CONNECT would be the tunnel's
        self.headers = []
        if self._stopping:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called when the receiver stops: the connection ends with the request that it brings, or may be bringing."""
        self._stopping = True
        if self._is_idle():
            patience = NEXT_REQUEST_SECONDS if self.cycle else FIRST_REQUEST_SECONDS
            # Twice: if this process was stalled, what has come meanwhile is read between the one and the other.
            self.loop.call_later(patience, self.loop.call_later, _ONE_TURN_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def refuse(self, refusal: type[Refusal]) -> None:
        """Answers only if that would not be taken for the answer to an earlier request; else ends with that one."""
        if self.cycle and not self.cycle.more_body and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.pipeline:
            self.transport.close()
        else:
            super().refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leaves no timer behind."""
        self._stop_timer()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _waits_for_head(self) -> bool:
        """Whether what comes next is the head of a request, or what is left of one already answered."""
        return self.cycle is None or self.cycle.scope is not self.scope or self.cycle.response_complete

    def _give_up(self) -> None:
        self._timer = None
        if self.cycle and not self.cycle.response_complete:  # an earlier request is still to be answered
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class _Transport:
    """A transport that sends an answer in one piece, and does not close in a client's face.

    uvicorn writes head and body one after the other, and uvloop sends each at once: two system calls and two
    TCP segments, a tenth of what a delivery costs the receiver. So what is written is held until the end of the
    loop's turn.

    When uvicorn closes a connection behind an answer, the client may still be sending the body. Closed at once, the
    connection would be reset, and the client would see that instead of the answer: it would take a 413 for trouble
    with the network, and send again and again. So at first only this side of the connection is closed, and what the
    client still sends is dropped (RFC 9112, 9.6).
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self.half_closed: asyncio.TimerHandle | None = None
        """Closes the other half."""
        self._dropped = 0

    def write(self, data: bytes) -> None:
        if self.half_closed:  # a request was still being worked on: uvloop raises where nothing can be written
            return
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        answered = bool(self._held)
        self._flush()
        if not answered or self._transport.is_closing():
            self._transport.close()
            return
        self.half_closed = self._loop.call_later(LINGER_SECONDS, self._transport.close)
        self._transport.write_eof()
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self.half_closed is not None or self._transport.is_closing()

    def drop(self, data: bytes) -> None:
        """Takes what comes after the connection was closed here."""
        self._dropped += len(data)
        if self._dropped > MAX_DROPPED_BYTES:
            self._transport.close()

    def closed(self) -> None:
        """Leaves no timer behind, which would keep all that belongs to the connection in memory."""
        if self.half_closed:
            self.half_closed.cancel()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():  # else the client has gone meanwhile
            self._transport.write(b"".join(self._held))
        self._held.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class WebhookProtocol(BoundedHeads):
    """For uvicorn's `http` setting: requests of any form, with bounded heads, and answers that arrive."""

    _out: _Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins a connection."""
        self._out = _Transport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._out))

    def data_received(self, data: bytes) -> None:
        """Takes in what has come, as long as it may still be answered."""
        if self._out.half_closed:
            self._out.drop(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the connection for good."""
        self._out.closed()
        super().connection_lost(exc)
