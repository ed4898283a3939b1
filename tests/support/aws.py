"""A stand-in for AWS Secrets Manager: what its own client asks, and what it answers (API of 2017-10-17)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.support.servers import serve

SECRET = "prod/jobhook"


@dataclass
class SecretsManager:
    """Knows one secret."""

    text: str | None = "{}"
    """None: it is binary."""
    asked: list[str] = field(default_factory=list)
    denied: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    """What leads a client here."""

    def keep(self, **fields: Any) -> None:
        self.text = orjson.dumps(fields).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert request.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
        asked = orjson.loads(await request.body())["SecretId"]
        self.asked.append(asked)
        if self.denied:
            answer = _error("AccessDeniedException")
        elif asked != SECRET:
            answer = _error("ResourceNotFoundException")
        else:
            kept = {"SecretBinary": "AAEC"} if self.text is None else {"SecretString": self.text}
            answer = _json(200, {"Name": SECRET, "VersionId": "1" * 32, **kept})
        await answer(scope, receive, send)


def _error(code: str) -> Response:
    return _json(400, {"__type": code, "Message": "a canary that no message may repeat"})


def _json(status: int, value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/x-amz-json-1.1")


@contextmanager
def secrets_manager() -> Iterator[SecretsManager]:
    """Serves one until the end of the block."""
    manager = SecretsManager()
    with serve(manager) as served:
        manager.environment = {
            "JOBHOOK_SECRETS_MANAGER": f"aws:{SECRET}",
            "AWS_ENDPOINT_URL": served.url,
            "AWS_ACCESS_KEY_ID": "the-tests",
            "AWS_SECRET_ACCESS_KEY": "the-tests",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield manager
