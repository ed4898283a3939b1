"""A request as it came over the wire, read from a file of raw HTTP/1.1."""

import re
from dataclasses import dataclass

from app.errors import JobhookError

_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) (\S+)(?: HTTP/[0-9.]{1,3})?")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r?\n")
_BOM = b"\xef\xbb\xbf"


class UnreadableRequest(JobhookError):
    """A text is no HTTP/1.1 request."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """What a signature can speak of."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[str, bytes], ...]
    """Names as they were written, values without the white space around them."""
    body: bytes
    complete: bool = True
    """Whether the body is as long as its Content-Length says."""

    @property
    def target(self) -> bytes:
        """Path and query."""
        return self.path + b"?" + self.query if self.query else self.path

    def all(self, name: bytes) -> list[bytes]:
        """All values of a header, by its name in lower case."""
        return [value for found, value in self.headers if found.lower().encode("latin-1") == name]


def parse_request(raw: bytes) -> RawRequest:
    """Reads a request, with lines that end in CRLF or LF. The body is what follows the empty line: as much of it
    as the Content-Length says, if there is so much.

    Raises:
        UnreadableRequest: it has no request line, or a line of its head is no header.
    """
    raw = raw.removeprefix(_BOM).lstrip(b"\r\n")
    end = _HEAD_END.search(raw)
    head, rest = (raw[: end.start()], raw[end.end() :]) if end else (raw.rstrip(b"\r\n"), b"")
    first, *lines = (line.removesuffix(b"\r") for line in head.split(b"\n"))
    match = _REQUEST_LINE.fullmatch(first.strip())
    if match is None:
        raise UnreadableRequest("is no HTTP request: its first line has to be like POST /webhooks/jobsiteon HTTP/1.1")
    target = _ORIGIN.sub(b"", match[2], count=1) or b"/"
    path, _, query = target.partition(b"?")
    headers = _headers(lines)
    fields = {name.lower(): value for name, value in headers}
    body, complete = _body(rest, fields)
    return RawRequest(match[1].decode(), path, query, headers, body, complete)


def _headers(lines: list[bytes]) -> tuple[tuple[str, bytes], ...]:
    headers: list[tuple[str, bytes]] = []
    for number, line in enumerate(lines, 2):
        if line[:1] in {b" ", b"\t"} and headers:  # a folded line (RFC 9112, 5.2)
            name, value = headers.pop()
            headers.append((name, value + b" " + line.strip()))
            continue
        field, colon, value = line.partition(b":")
        if not colon or not field.strip():
            raise UnreadableRequest(
                f"line {number} is no header: it has no colon. Is an empty line missing before the body?"
            )
        headers.append((field.strip().decode("latin-1"), value.strip()))
    return tuple(headers)


def _body(rest: bytes, fields: dict[str, bytes]) -> tuple[bytes, bool]:
    if b"chunked" in fields.get("transfer-encoding", b"").lower():
        body = _unchunked(rest)
        return (rest, False) if body is None else (body, True)
    declared = fields.get("content-length", b"")
    if not declared.isdigit():
        return rest, True
    length = int(declared[:18])
    return rest[:length], length <= len(rest)


def _unchunked(rest: bytes) -> bytes | None:
    """The body of chunks; None if it was saved without them, or not to its end."""
    chunks: list[bytes] = []
    at = 0
    while match := _CHUNK_SIZE.match(rest, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(chunks)
        chunk = rest[match.end() : match.end() + size]
        if len(chunk) < size:
            return None
        chunks.append(chunk)
        at = match.end() + size
        at += 2 if rest[at : at + 2] == b"\r\n" else 1
    return None
