"""Every form that a request may have (RFC 9110 and 9112): none of them is a reason to refuse a delivery (P8).

uvicorn and the parser under it leave some forms to others. Here:

- An `Upgrade` is ignored, as RFC 9110, 7.8 allows, and the request answered. The parser would take its body for the
  first bytes of the other protocol. Java's HttpClient and `curl --http2` send one with every first request.
- `Expect: 100-continue` is found in a list, and ignored in HTTP/1.0, where a 100 would be taken for the answer.
- A target in absolute form is read as the path in it, whatever the host is called and also if the path is empty.
- White space around a header's value is not part of it, be it spaces or tabs.
- HTTP/1.2 and later are read as HTTP/1.1 (RFC 9110, 2.5). Other major versions, and lines without one, get a 400.
- `Host` is there exactly once, and names a host; else it is a 400, as RFC 9112, 3.2 demands.

What is malformed gets a 400, and its connection is closed. That includes what may be read in two ways, such as
Content-Length together with Transfer-Encoding: who stands in front may have read it in the other way.
"""

import re
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.receiver.refusals import Malformed, Refusal

_HOST = re.compile(rb"(?:\[[\w.~!$&'()*+,;=:%-]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?")
"""`uri-host [ ":" port ]` of RFC 9110, 7.2; empty where the target has no authority."""
_ABSOLUTE = re.compile(rb"https?://[^/?#]+(.*)", re.IGNORECASE)
_WHITE_SPACE = b" \t"

log = structlog.stdlib.get_logger(__name__)


class NotWellFormed(Exception):
    """Stops the parser: the request gets a 400."""


class AnyForm(HttpToolsProtocol):
    """uvicorn's HTTP protocol, for requests of any form."""

    _reads_again = False
    """Whether the request that is being parsed asks for another protocol, and so has to be parsed once more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = self._new_parser()

    def data_received(self, data: bytes) -> None:
        """Parses what has come, and refuses what is malformed."""
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError:
            self.refuse(Malformed)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes in one header."""
        name = name.lower()
        if name == b"expect" and b"100-continue" in [item.strip() for item in value.lower().split(b",")]:
            self.expect_100_continue = True
        self.headers.append((name, value.strip(_WHITE_SPACE)))

    def on_headers_complete(self) -> None:
        """Begins to answer the request.

        Raises:
            NotWellFormed: it is not to be answered.
        """
        connect = False
        if self.parser.should_upgrade():
            connect = self.parser.get_method() == b"CONNECT"
            if not connect:
                self._reads_again = True
                return
        version = self.parser.get_http_version()
        if not version.startswith("1."):
            raise NotWellFormed
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or version != "1.0"):
            raise NotWellFormed
        if hosts and not _HOST.fullmatch(hosts[0]):
            raise NotWellFormed
        if version == "1.0":
            self.expect_100_continue = False
        if not self.url.startswith(b"/"):
            self.url = b"/" if connect else _origin_form(self.url)
        super().on_headers_complete()
        if connect:  # what follows would be the tunnel's
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Ends the request's body, unless the request is parsed once more."""
        if not self._reads_again:
            super().on_message_complete()

    def refuse(self, refusal: type[Refusal]) -> None:
        """Answers what could not be made a request, and closes the connection."""
        headers, body = refusal.response()
        lines = [name + b": " + value + b"\r\n" for name, value in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body]))
        self.transport.close()
        log.warning("refused", reason=refusal.slug, peer=self.client[0] if self.client else None)

    def _parse(self, data: bytes) -> bytes:
        """Parses. Returns what has to be parsed after it: a request without its Upgrade, and what has come behind."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._reads_again:  # behind a CONNECT
                return b""
            head = self._head_without_upgrade()
            self._reads_again = False
            self.parser = self._new_parser()
            (end_of_head,) = upgrade.args
            return head + data[end_of_head:]
        return b""

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version), *lines, b"", b""])

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True,  # what is pipelined behind a `Connection: close` spoils no answer
            lenient_version=True,  # looked at in on_headers_complete
            lenient_spaces_after_chunk_size=True,  # RFC 9112, 7.1.1: "a recipient MUST parse for such bad whitespace"
        )
        return parser


def _origin_form(target: bytes) -> bytes:
    """The path and query of a target in absolute form. `*` stays as it is.

    Raises:
        NotWellFormed: it has another form.
    """
    if target == b"*":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise NotWellFormed
    return absolute[1] if absolute[1].startswith(b"/") else b"/" + absolute[1]
