"""`jobhook openapi`: what the receiver answers, for programs."""

from app.cli.output import print_json
from app.config.sources import load_settings
from app.delivery.scheme import Scheme
from app.errors import ConfigError


def openapi() -> None:
    """Print the OpenAPI document of the receiver, for the signature that is configured, or else the usual one."""
    from app.main import openapi as document  # noqa: PLC0415 - FastAPI is slow to import, and only needed here

    try:
        scheme = load_settings().signature_scheme
    except ConfigError:  # the document is of use before there is a key
        scheme = Scheme()
    print_json(document(scheme))
