"""Forwarding: events are POSTed to systems of yours that are not written in Python.

`JOBHOOK_FORWARD_URLS` names them, as pairs of an event pattern and a URL. Each URL becomes a handler,
so that what holds for handlers holds here: failures are retried by the schedule, and a destination
that has taken an event is not sent it again because another one failed (P5).

A request carries the body as JobsiteOn signed it, to the byte, and is signed anew by the Standard
Webhooks scheme. Requests can be repeated; the header `webhook-id` is the same for all of an event.
"""

import httpx

from app.config.settings import Settings
from app.errors import ConfigError
from app.inbox.inbox import connect
from workers.forward.circuit import Circuit
from workers.forward.destination import read_pairs
from workers.forward.handler import Forward
from workers.forward.signer import HOW_TO_MAKE_ONE, Signer
from workers.registry import Registry

TOTAL_SECONDS = 15.0
"""For a whole request: half of the default handler timeout."""

__all__ = ["register"]


def register(registry: Registry, settings: Settings) -> None:
    """Registers a handler for each URL of the settings, in place of those registered before.

    Where several patterns of a URL match an event, it is sent there once.

    Raises:
        ConfigError: a URL or a secret is missing or wrong.
    """
    pairs = read_pairs(pair.get_secret_value() for pair in settings.forward_urls)
    if pairs and not settings.forward_secret:
        raise ConfigError(f"JOBHOOK_FORWARD_SECRET: is not set, but JOBHOOK_FORWARD_URLS is; {HOW_TO_MAKE_ONE}")
    signers = tuple(Signer(secret.get_secret_value()) for secret in settings.forward_secret)
    registry.handlers[:] = [known for known in registry.handlers if not isinstance(known.function, Forward)]
    if not pairs:
        return
    # Half of the time is left to the other handlers of the event, which run before. Destinations are asked together.
    seconds = min(TOTAL_SECONDS, settings.handler_timeout / 2)
    redis = connect(settings)
    tls = httpx.create_ssl_context()  # the CAs of $SSL_CERT_FILE or $SSL_CERT_DIR, if set: a private CA, say
    forwards = {
        name: Forward(destination, signers, Circuit(redis, name, seconds), seconds, tls)
        for name, destination in {destination.name: destination for _, destination in pairs}.items()
    }
    for pattern, destination in pairs:
        registry.add(f"forward {destination.name}", forwards[destination.name], pattern, is_concurrent=True)
