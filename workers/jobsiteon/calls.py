"""A call of the API before it is sent: what JobsiteOn offers, and nothing else.

Documented ("API Access and Webhooks"): the six resources and their methods. No DELETE anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote

from workers.jobsiteon.errors import Invalid

Method = Literal["GET", "POST", "PATCH"]

RESOURCES: dict[str, tuple[Method, ...]] = {
    "contacts": ("GET", "POST", "PATCH"),
    "jobs": ("GET", "POST", "PATCH"),
    "invoices": ("GET", "POST", "PATCH"),
    "payments": ("GET", "POST"),
    "pricebook": ("GET", "POST", "PATCH"),
    "properties": ("GET", "POST", "PATCH"),
}
_RESOURCE_OF = {
    "contact": "contacts",
    "job": "jobs",
    "invoice": "invoices",
    "payment": "payments",
    "property": "properties",
}


@dataclass(frozen=True)
class Call:
    """One call, however often it is tried. The path is canonical: `/contacts/con_1001`."""

    method: Method
    path: str
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    data: Any = field(default=None, repr=False)
    idempotency_key: str | None = None
    lists: bool = False
    """Whether a list is wanted rather than an object."""
    url: str | None = field(default=None, repr=False)
    """The page to fetch, where the page before it has named its URL."""

    def __str__(self) -> str:
        return f"{self.method} {self.shown_path}"

    @property
    def shown_path(self) -> str:
        """The path for logs and errors: without an id, since ids come from payloads (P7)."""
        _, resource, *rest = self.path.split("/")
        return f"/{resource}{'/…' if rest else ''}"

    @property
    def resource(self) -> str:
        """The first part of the path."""
        return self.path.split("/")[1]

    @property
    def is_safe(self) -> bool:
        """Whether it may be repeated at will."""
        return self.method == "GET"


def canonical(method: Method, path: str) -> str:
    """A path that JobsiteOn offers for a method, each part percent-encoded in the one canonical way.

    Raises:
        Invalid: it does not, or the path is none: relative, empty parts, dots, a query.
    """
    first, *parts = path.split("/")
    if not _is_text(path):
        raise Invalid(f"{method}: the path has characters that are no text.")
    names = [unquote(part) for part in parts]
    if first or not parts or "?" in path or "#" in path or any(name in {"", ".", ".."} for name in names):
        raise Invalid(f"{method}: a path looks like /contacts or /contacts/<id>; a query goes into parameters.")
    if method not in RESOURCES.get(names[0], ()):
        raise Invalid(f"JobsiteOn's API offers no {method} of this path.")
    return "/" + "/".join(quote(name, safe="") for name in names)


def element(resource: str, id: object) -> str:
    """The path of one element.

    Raises:
        Invalid: the id is none, such as the None of a payload that lacks it.
    """
    if isinstance(id, bool) or not isinstance(id, str | int) or id in {"", ".", ".."}:
        raise Invalid(f"/{resource}: that is no id.")
    if not _is_text(str(id)):
        raise Invalid(f"/{resource}: the id has characters that are no text.")
    return f"/{resource}/{quote(str(id), safe='')}"


def _is_text(value: str) -> bool:
    """False with half of a surrogate pair in it, as JSON may have: no UTF-8 can carry that."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def resource_of(entity: str) -> str | None:
    """The resource of an event's entity: `contacts` for `contact`. None if the API has none."""
    resource = _RESOURCE_OF.get(entity, entity)
    return resource if resource in RESOURCES else None
