"""`jobhook openapi`: what the receiver answers, for programs."""

from app.cli.output import print_json


def openapi() -> None:
    """Print the OpenAPI document of the receiver."""
    from app.main import openapi as document  # noqa: PLC0415 - FastAPI is slow to import, and only needed here

    print_json(document())
