"""Which key, used on which content, makes a MAC that a request carries. It knows nothing of settings."""

import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product

from app.delivery.diagnosis.bodies import Altered, altered
from app.delivery.diagnosis.clues import Clue, Mac, ids, macs, times
from app.delivery.diagnosis.contents import all_contents, common_contents, usual_contents
from app.delivery.diagnosis.keys import Key, Material, materials, mispasted
from app.delivery.diagnosis.request import RawRequest
from app.delivery.scheme import ALGORITHMS, CONTENT_NAMES, KEY_FORMS, KeyForm, Scheme, tokens
from app.delivery.signature import compose

BODY_HASH = "a plain hash of the body"
_MEGABYTES = 1_000_000
_DIGEST_BYTES = 600
"""What making a MAC costs beside the hashing, in bytes that could be hashed meanwhile."""
_READABLE_FORMS: tuple[KeyForm, ...] = ("text", "hex", "base64")
"""Forms that are tried together with altered bodies."""
_MAX_FOUND = 8
"""After which a step ends: they are ways to say the same."""


@dataclass(frozen=True, slots=True)
class Found:
    """How a MAC of the request was made."""

    mac: Mac
    material: Material
    content: str
    time: Clue | None
    id: Clue | None
    url: str
    altered: Altered | None = None


class Search:
    """Tries everything, the likeliest first, until a step has found something."""

    def __init__(self, request: RawRequest, keys: Sequence[Key], scheme: Scheme, urls: Sequence[str]) -> None:
        self.request = request
        self.macs = macs(request)
        self.is_cut = False
        """Whether there was too much to try everything: the body is large, or many headers may be signed."""
        self.tried = 0
        """MACs made."""
        self._keys = keys
        self._forms = tuple(dict.fromkeys((scheme.key_form, *KEY_FORMS)))
        self._present = scheme.content
        self._times = times(request, self.macs)
        self._ids = ids(request, self.macs)
        self._urls = urls
        self._by_hash: dict[str, dict[bytes, list[Mac]]] = {}
        for mac in self.macs:
            self._by_hash.setdefault(mac.hash, {}).setdefault(mac.mac, []).append(mac)

    def run(self) -> list[Found]:
        """What was found by the first step that found anything."""
        # A megabyte takes half a millisecond to hash on a fast machine, two on a slow one. Small bodies stay far
        # below these bounds; of a large one, the likelier half of what could be is tried.
        steps: tuple[tuple[Callable[[], Iterator[Found]], int], ...] = (
            (self._usual_contents, 400 * _MEGABYTES),
            (self._mispasted_keys, 200 * _MEGABYTES),
            (self._altered_bodies, 300 * _MEGABYTES),
            (self._unusual_contents, 1000 * _MEGABYTES),
        )
        for step, budget in steps if self._by_hash else ():
            self._left = budget
            if found := list(islice(step(), _MAX_FOUND)):
                return found
        return []

    def refused(self) -> Iterator[tuple[Mac, str]]:
        """Hashes that are never accepted, though something is known that makes them, with words for what they are."""
        body = self.request.body
        texts = {BODY_HASH: body}
        for key in self._keys:
            texts["a plain hash of the key and the body"] = key.value + body
            texts["a plain hash of the body and the key"] = body + key.value
            yield from self._known(texts)
        for name, material in product(ALGORITHMS, materials(self._keys, self._forms)):
            made = hmac.digest(material.value, body, name)
            for mac in self.macs:
                if len(mac.mac) < len(made) and made.startswith(mac.mac):
                    yield mac, f"an HMAC of the body that was cut off after {len(mac.mac)} of its {len(made)} bytes"

    def _known(self, texts: Mapping[str, bytes]) -> Iterator[tuple[Mac, str]]:
        for name, wanted in self._by_hash.items():
            for words, text in texts.items():
                for mac in wanted.get(hashlib.new(name, text, usedforsecurity=False).digest(), ()):
                    yield mac, words

    def _usual_contents(self) -> Iterator[Found]:
        return self._try(usual_contents(self._present), materials(self._keys, self._forms))

    def _mispasted_keys(self) -> Iterator[Found]:
        return self._try(common_contents(self._present), materials(mispasted(self._keys), self._forms))

    def _altered_bodies(self) -> Iterator[Found]:
        made = materials(self._keys, tuple(dict.fromkeys((self._forms[0], *_READABLE_FORMS))))
        for body in altered(self.request.body):
            yield from self._try(common_contents(self._present), made, body)

    def _unusual_contents(self) -> Iterator[Found]:
        return self._try(all_contents(), materials(self._keys, self._forms))

    def _try(self, contents: Iterable[str], made: Sequence[Material], body: Altered | None = None) -> Iterator[Found]:
        for content in contents:
            parts = tokens("content", content, CONTENT_NAMES)
            for time, id, url in product(
                self._times if "timestamp" in parts else (None,),
                self._ids if "id" in parts else (None,),
                self._urls if "url" in parts else ("",),
            ):
                signed = compose(parts, self._values(body, time, id, url))
                for name, wanted in self._by_hash.items():
                    self._left -= (len(signed) + _DIGEST_BYTES) * len(made)
                    if self._left < 0:
                        self.is_cut = True
                        return
                    self.tried += len(made)
                    for material in made:
                        for mac in wanted.get(hmac.digest(material.value, signed, name), ()):
                            yield Found(mac, material, content, time, id, url, body)

    def _values(self, body: Altered | None, time: Clue | None, id: Clue | None, url: str) -> dict[str, bytes]:
        request = self.request
        return {
            "body": request.body if body is None else body.body,
            "timestamp": time.value if time else b"",
            "id": id.value if id else b"",
            "url": url.encode(),
            "method": request.method.encode(),
            "path": request.target,
        }
