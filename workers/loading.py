"""Which modules hold handlers: imports them, so that they register, and adds what forwards events.

That is done in the process that runs them, never before a fork: a connection that a module opens when it is imported
must not be shared by several workers, and threads do not survive a fork.
"""

import importlib
import importlib.util
import pkgutil

from app.config.settings import Settings
from app.errors import ConfigError
from workers import frames
from workers.registry import Registry, registry
from workers.resources import refuse_unknown_needs

REQUIREMENTS = "requirements-handlers.txt"
"""What handlers need besides Jobhook: installed by `make setup` and into the image."""


def load(settings: Settings) -> Registry:
    """Imports the modules with handlers (of a package, all that it holds), adds what forwards events,
    and returns the registry they filled.

    Raises:
        ConfigError: a module cannot be imported, a handler asks for what nobody can give it, or a destination
            cannot be used.
    """
    for name in settings.handlers:
        try:
            module = importlib.import_module(name)
            for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
                importlib.import_module(info.name)
        except (Exception, SystemExit) as error:  # a script has no end of its own here
            raise ConfigError(_why_not(name, error)) from error
    if settings.forward_urls:
        from workers import forward  # noqa: PLC0415 - httpx and its TLS context: only those who forward pay for them

        forward.register(registry, settings)
    refuse_unknown_needs([*registry.handlers, *registry.of_the_dead])
    return registry


def _why_not(name: str, error: BaseException) -> str:
    """Why a module with handlers cannot be imported: what, where, and what to do."""
    said = f"JOBHOOK_HANDLERS: {name} cannot be imported: {error!r}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{said}, in {error.filename}, line {error.lineno}"
    if own := frames.own(error):
        said += f", in {own[-1].filename}, line {own[-1].lineno}"
    if isinstance(error, ModuleNotFoundError) and error.name and (package := _missing(error.name)):
        if package == name.partition(".")[0]:
            return f"{said}. There is no module of that name here"
        said += f". Add the package that has {package!r} to {REQUIREMENTS}, then: make setup (or build the image anew)"
    return said


def _missing(module: str) -> str | None:
    """The package of a module that could not be found, if it is the package that is not there."""
    package = module.partition(".")[0]
    try:
        return None if importlib.util.find_spec(package) else package
    except (ImportError, ValueError):
        return package
