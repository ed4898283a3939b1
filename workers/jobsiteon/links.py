"""The header `Link` (RFC 8288, 3 and appendix B.2), which may name the next page."""

import re
from collections.abc import Iterable

_BETWEEN = re.compile(r"[\s,]*")
_TARGET = re.compile(r"<([^>]*)>")
_PARAMETER = re.compile(r'\s*;\s*([^\s=;,"<>]*)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')
_END = re.compile(r"\s*(?:,|$)")
_ESCAPED = re.compile(r"\\(.)")


def by_relation(headers: Iterable[str]) -> dict[str, str]:
    """The targets by relation type, in small letters; of several with the same type the first.

    Links about something else than the page (`anchor`) are left out.

    Raises:
        ValueError: a header is malformed.
    """
    found: dict[str, str] = {}
    for header in headers:
        at = _skip(header, 0)
        while at < len(header):
            target, parameters, at = _link(header, at)
            if "anchor" not in parameters:
                for relation in parameters.get("rel", "").lower().split():
                    found.setdefault(relation, target)
            at = _skip(header, at)
    return found


def _skip(header: str, at: int) -> int:
    between = _BETWEEN.match(header, at)
    return between.end() if between else at


def _link(header: str, at: int) -> tuple[str, dict[str, str], int]:
    target = _TARGET.match(header, at)
    if target is None:
        raise ValueError("a link does not begin with <URL>")
    at = target.end()
    parameters: dict[str, str] = {}
    while parameter := _PARAMETER.match(header, at):
        name, quoted, token = parameter.groups()
        value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else token or ""
        parameters.setdefault(name.lower(), value)  # the first counts (3.3)
        at = parameter.end()
    end = _END.match(header, at)
    if end is None:
        raise ValueError("a link does not end where it should")
    return target[1].strip(), parameters, end.end()
