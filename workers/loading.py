"""Which modules hold handlers: imports them, so that they register, and adds what forwards events.

That is done in the process that runs them, never before a fork: a connection that a module opens when it is imported
must not be shared by several workers, and threads do not survive a fork.
"""

import importlib
import pkgutil

from app.config.settings import Settings
from app.errors import ConfigError
from workers.registry import Registry, registry
from workers.resources import refuse_unknown_needs


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
            raise ConfigError(f"JOBHOOK_HANDLERS: {name} cannot be imported: {error!r}") from error
    if settings.forward_urls:
        from workers import forward  # noqa: PLC0415 - httpx and its TLS context: only those who forward pay for them

        forward.register(registry, settings)
    refuse_unknown_needs(registry.handlers)
    return registry
