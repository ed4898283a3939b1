"""What may be signed: templates of the body with what senders add to it, the likeliest first."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import permutations

_SEPARATORS = (".", ":", "", "\\n", "|", ",", ";", "-", "_", "&", "+", "/", "#", " ", "\\r\\n")
_PLACES = ((), ("{url}",), ("{path}",), ("{method}", "{path}"), ("{method}", "{url}"), ("{method}",))
_VERSIONS = ("v0", "v1", "v2", "v3")
_ENDS = ("", "\\n", "\\r\\n")
_PARTS_WITH_ENDS = 2
"""Contents of so many parts are tried with a newline at their end, too."""
_PLAIN = (*("{body}" + end for end in _ENDS), "\\ufeff{body}")
_USUAL = (
    *("{timestamp}.{body}", "{timestamp}:{body}", "{timestamp}{body}", "{body}{timestamp}", "v0:{timestamp}:{body}"),
    *("{id}.{timestamp}.{body}", "{id}{timestamp}{body}", "{url}{body}", "{body}{url}"),
)


def common_contents(present: str) -> list[str]:
    """The few that are tried together with every other deviation; `present` is the first."""
    return list(dict.fromkeys((present, *_PLAIN, *_USUAL)))


def usual_contents(present: str) -> list[str]:
    """What is tried first: the common contents, and the same with a newline at their end."""
    common = common_contents(present)
    return list(dict.fromkeys((*common, *(content + end for content in common for end in _ENDS))))


@lru_cache(maxsize=1)
def all_contents() -> list[str]:
    """Every template that is tried, each once; those of few parts and usual separators first."""
    joined = sorted(_joined(), key=lambda ranked: ranked[0])
    return list(dict.fromkeys((*_PLAIN, *(content for _, content in joined))))


def _joined() -> Iterator[tuple[int, str]]:
    """Templates with how unlikely they are."""
    for values in ((), ("{timestamp}",), ("{id}",), ("{id}", "{timestamp}")):
        for place in _PLACES:
            if not values and not place:
                continue
            units = [*values, *([place] if place else []), "{body}"]
            for order in permutations(units):
                parts = [part for unit in order for part in ((unit,) if isinstance(unit, str) else unit)]
                for rank, separator in enumerate(_SEPARATORS):
                    yield from _variants(parts, separator, len(parts) * len(_SEPARATORS) + rank)


def _variants(parts: list[str], separator: str, rank: int) -> Iterator[tuple[int, str]]:
    content = separator.join(parts)
    yield rank, content
    if len(parts) == _PARTS_WITH_ENDS:
        for end in _ENDS[1:]:
            yield rank + 2 * len(_SEPARATORS), content + end
    if separator in {".", ":"} and "{timestamp}" in parts:
        for version in _VERSIONS:
            yield rank + len(_SEPARATORS), version + separator + content
