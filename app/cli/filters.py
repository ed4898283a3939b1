"""The options by which commands choose events: the same words everywhere, declared once."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from app.cli.output import errors, local
from app.inbox.filter import BadFilter, Filter
from app.inbox.record import STATES
from app.inbox.search import Search

_PLACE = "chosen"


def _options(
    state: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(STATES)}; several: dead,retrying.")] = None,
    type: Annotated[str | None, typer.Option(help="Pattern of the type, such as 'invoice.*'.")] = None,
    resource: Annotated[str | None, typer.Option(help="What it is about: contact/con_1, or the id alone.")] = None,
    handler: Annotated[
        str | None, typer.Option(help="A handler that its record tells of, or a URL forwarded to.")
    ] = None,
    error: Annotated[str | None, typer.Option(help="Pattern of the class of an error in its history.")] = None,
    key: Annotated[str | None, typer.Option(help="The key that signed it: its fingerprint's first digits.")] = None,
    conflict: Annotated[bool, typer.Option("--conflict", help="It has another's id, and says something else.")] = False,
    unhandled: Annotated[bool, typer.Option("--unhandled", help="Only those that no handler wanted.")] = False,
    since: Annotated[str | None, typer.Option(help="Received from then on: 90s, 2h, 7d ago; a time and zone.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before then, in the same forms.")] = None,
    search: Annotated[str | None, typer.Option(help="Text in its body, ids, errors or results.")] = None,
) -> None:
    """What a command that is `filtered` has beside its own options."""


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command these options. It is called with the filter that they make, as `chosen`."""
    own, options = signature(command, eval_str=True), signature(_options, eval_str=True)

    @wraps(command)
    def called(**given: Any) -> None:
        words = {name: given.pop(name) for name in options.parameters}
        try:
            command(**given, chosen=Filter.of(words))
        except BadFilter as bad:
            raise typer.BadParameter(str(bad), param_hint=f"--{bad.word}") from None

    parameters: list[Parameter] = []
    for parameter in own.parameters.values():
        parameters += options.parameters.values() if parameter.name == _PLACE else [parameter]
    called.__signature__ = Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def tell_how_far(search: Search) -> None:
    """Says of a search that has stopped before its end how far it has looked, and how to have it go on."""
    if search.is_over:
        return
    back_to = f", back to {local(search.back_to)}" if search.back_to else ""
    errors.print(
        f"Looked at {search.looked} events{back_to}; there are more. To look further: --since and --until, or --look",
        style="yellow",
    )
