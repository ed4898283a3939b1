"""The coding of an answer's body: none, or gzip once, decoded within a limit.

httpx decodes whatever an answer names, as often as it names it, before anybody can count: 3.5 KB of gzip in
gzip in gzip became 4 GB in memory. So answers are read as they come over the wire, and decoded here.
"""

import zlib

ACCEPTED = "gzip"
"""What requests ask for."""
_GZIP = {"gzip", "x-gzip"}  # RFC 9110, 8.4.1.3: the same
_GZIP_FORMAT = zlib.MAX_WBITS | 16


class Decoder:
    """Decodes one body piece by piece. A `ValueError` says that the coding is not accepted or the body is broken."""

    def __init__(self, codings: str, most_bytes: int) -> None:
        named = [coding.strip().lower() for coding in codings.split(",")]
        named = [coding for coding in named if coding not in {"", "identity"}]
        if len(named) > 1 or not _GZIP.issuperset(named):
            raise ValueError("not a coding that was asked for")
        self._gzip = zlib.decompressobj(_GZIP_FORMAT) if named else None
        self._most = most_bytes
        self.body = bytearray()

    @property
    def is_too_large(self) -> bool:
        """Whether the body has passed the limit: what follows is not decoded."""
        return len(self.body) > self._most

    def add(self, piece: bytes) -> None:
        """Takes a piece."""
        if self._gzip is None:
            self.body += piece
            return
        while piece and not self.is_too_large:
            if self._gzip.eof:  # gzip may consist of several members (RFC 1952, 2.2)
                self._gzip = zlib.decompressobj(_GZIP_FORMAT)
            try:
                self.body += self._gzip.decompress(piece, self._most + 1 - len(self.body))
            except zlib.error:
                raise ValueError("not gzip") from None
            piece = self._gzip.unconsumed_tail or self._gzip.unused_data

    def end(self) -> bytes:
        """The whole body."""
        if self._gzip is not None and not self._gzip.eof and self.body:
            raise ValueError("the gzip is cut off")
        return bytes(self.body)
