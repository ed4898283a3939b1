"""`jobhook openapi`: what the receiver answers, for programs."""

from app.cli.output import errors, print_json
from app.config.sources import load_settings
from app.delivery.scheme import Scheme
from app.errors import ConfigError


def openapi() -> None:
    """Print the OpenAPI document of the receiver."""
    from app.main import openapi as document  # noqa: PLC0415 - FastAPI is slow to import, and only needed here

    print_json(document(_scheme()))


def _scheme() -> Scheme:
    """How deliveries are signed; by default, where nothing usable is configured."""
    try:
        return load_settings().signature_scheme
    except ConfigError as error:
        errors.print(f"The document is that of the default settings, because:\n{error}", style="yellow", markup=False)
        return Scheme()
