"""What a function would have to be given, and whether calling it would run it: found out when it is registered."""

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any, NamedTuple

from app.errors import ConfigError

_GIVEN_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Need(NamedTuple):
    """A parameter after the event that has no default."""

    parameter: str
    type: Any
    """Its annotation."""
    by_name: bool
    """Whether it can only be given by name."""


def needs(handler: str, function: Callable[..., Any]) -> tuple[Need, ...]:
    """What a function has to be given besides the event, which comes first.

    Parameters with a default keep it. The annotation of the event is not looked at: it may be imported
    for type checkers only.

    Raises:
        ConfigError: it does not take the event, or it is not clear what else it wants.
    """
    parameters = _parameters(function)
    if not parameters or parameters[0].kind not in {*_GIVEN_BY_PLACE, inspect.Parameter.VAR_POSITIONAL}:
        raise ConfigError(f"Handler {handler} has to take the event as its first argument.")
    return tuple(
        Need(parameter.name, _annotation(handler, function, parameter), parameter.kind not in _GIVEN_BY_PLACE)
        for parameter in parameters[1:]
        if parameter.default is parameter.empty and parameter.kind not in _ANY_NUMBER
    )


def refuse_what_would_not_run(handler: str, function: Any) -> None:
    """Refuses what can be called without anything of it being run.

    Raises:
        ConfigError: it is a generator function, a class, or nothing that can be called.
    """
    if isinstance(function, type):
        raise ConfigError(f"Handler {handler} is a class: register a function, or an object that can be called.")
    if not callable(function):
        raise ConfigError(f"Handler {handler} cannot be called: with classmethod, put @on outermost on a function.")
    called = _innermost(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise ConfigError(f"Handler {handler} has a `yield`: calling it would run nothing of it.")


def not_run(result: Any) -> str | None:
    """What a handler has returned instead of running it: "a generator", say. None if it is a mere value."""
    if isinstance(result, Generator | AsyncGenerator | map | filter):
        return f"a {type(result).__name__}"
    if inspect.isroutine(result) or isinstance(result, partial):
        return "a function"
    return None


def written_at(function: Any) -> str | None:
    """File and line where a function begins; None if it is not written in Python."""
    code = getattr(inspect.unwrap(_innermost(function)), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


def _innermost(function: Any) -> Any:
    """The function that a call leads to, through `partial`, methods and objects that can be called."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, staticmethod) or inspect.ismethod(function):
            function = function.__func__
        elif inspect.isroutine(function):
            return function
        else:
            function = type(function).__call__


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        if sys.version_info >= (3, 14):  # where annotations are evaluated when they are asked for
            from annotationlib import Format  # noqa: PLC0415

            signature = inspect.signature(function, annotation_format=Format.FORWARDREF)
        else:
            signature = inspect.signature(function)
    except ValueError:  # written in C: it tells nothing of itself
        return [inspect.Parameter("event", inspect.Parameter.POSITIONAL_ONLY)]
    return list(signature.parameters.values())


def _annotation(handler: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        raise ConfigError(f"Handler {handler}: say by an annotation what {parameter.name!r} is, as JobsiteOn.")
    if not isinstance(annotation, str):
        return annotation
    names = getattr(inspect.unwrap(_innermost(function)), "__globals__", {})
    try:
        return eval(annotation, names)  # noqa: S307 - as Python does without `from __future__ import annotations`
    except Exception as error:  # noqa: BLE001 - whatever stands there is evaluated
        raise ConfigError(
            f"Handler {handler}: {parameter.name!r} is annotated {annotation!r}, which cannot be found at run time "
            f"({type(error).__name__}): import it outside of `if TYPE_CHECKING`."
        ) from None
