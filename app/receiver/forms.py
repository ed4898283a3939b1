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

log = structlog.stdlib.get_logger(__name__)


class NotWellFormed(Exception):
    """Stops the parser: the request gets a 400."""


class AnyForm(HttpToolsProtocol):
    """uvicorn's HTTP protocol, for requests of any form."""

    _host = b""
    """The Host of an earlier request, which need not be looked at again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = self._new_parser()

    def data_received(self, data: bytes) -> None:
        """Parses what has come, and refuses what is malformed."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse(Malformed)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                (end_of_head,) = upgrade.args
                self._parse_again(data[end_of_head:])

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes in one header."""
        name = name.lower()
        if name == b"expect" and b"100-continue" in [item.strip() for item in value.lower().split(b",")]:
            self.expect_100_continue = True
        self.headers.append((name, value.strip()))

    def on_headers_complete(self) -> None:
        """Begins to answer the request, unless it is parsed again.

        Raises:
            NotWellFormed: it is not to be answered.
        """
        version = self.parser.get_http_version()
        self._check(version)
        if version == "1.0":
            self.expect_100_continue = False
        if not self.url.startswith(b"/"):
            self.url = _origin_form(self.url, self.parser.get_method())
        super().on_headers_complete()

    def refuse(self, refusal: type[Refusal]) -> None:
        """Answers what could not be made a request, and closes the connection."""
        headers, body = refusal.response()
        lines = [name + b": " + value + b"\r\n" for name, value in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join([STATUS_LINE[refusal.status], *lines, b"\r\n", body]))
        self.transport.close()
        log.warning("refused", reason=refusal.slug, peer=self.client[0] if self.client else None)

    def _check(self, version: str) -> None:
        if not version.startswith("1."):
            raise NotWellFormed
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) == 1:
            if hosts[0] != self._host and not _HOST.fullmatch(hosts[0]):
                raise NotWellFormed
            self._host = hosts[0]
        elif hosts or version != "1.0":
            raise NotWellFormed

    def _should_upgrade(self) -> bool:
        """Asked by uvicorn where the parser has found an Upgrade, or a CONNECT. If so, it does not begin to answer."""
        return self.parser.get_method() != b"CONNECT"

    def _parse_again(self, rest: bytes) -> None:
        """Parses the request whose head has just been parsed, but without its Upgrade, and what has come behind it."""
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        head += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = self._new_parser()
        AnyForm.data_received(self, b"\r\n".join([*head, b"", rest]))

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(
            lenient_data_after_close=True,  # what is pipelined behind a `Connection: close` spoils no answer
            lenient_version=True,  # looked at in _check
            lenient_spaces_after_chunk_size=True,  # RFC 9112, 7.1.1: "a recipient MUST parse for such bad whitespace"
        )
        return parser


def _origin_form(target: bytes, method: bytes) -> bytes:
    """The path and query of a target in another form; `/` for a CONNECT, which has none.

    Raises:
        NotWellFormed: it has no form at all.
    """
    if target == b"*":
        return target
    if method == b"CONNECT":
        return b"/"
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise NotWellFormed
    return absolute[1] if absolute[1].startswith(b"/") else b"/" + absolute[1]
