"""The application: what is assembled from which parts. Nothing happens at import."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.config.settings import Settings
from app.config.sources import load_settings
from app.inbox.inbox import Inbox
from app.ops import logs
from app.ops.health import COMMAND_SECONDS, Health, refuse_to_start
from app.ops.metrics import CONTENT_TYPE, Metrics
from app.ops.parent import end_with_parent
from app.receiver.endpoint import PATH, Receiver
from app.receiver.intake import Intake
from app.receiver.openapi import describe_webhook
from app.receiver.refusals import REFUSALS
from app.store.connections import connect


class _Application(FastAPI):
    """FastAPI, with a short way for the one path that has to be fast.

    The endpoint needs nothing of what the middleware stack does; walking through it costs more than
    verifying and recording together.
    """

    webhook: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            await self.webhook(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The receiver, as an ASGI application. `jobhook serve` runs it, with the limits of `app/receiver/http.py`.

    Raises:
        ConfigError: the settings, or the Redis they name, cannot be used.
    """
    settings = settings or load_settings()
    logs.configure(settings)
    redis = connect(settings.redis_url, timeout=COMMAND_SECONDS)
    refuse_to_start(settings, redis)
    inbox = Inbox(redis, settings)
    health = Health(settings)
    intake = Intake(settings)
    metrics = Metrics(inbox.stats, [refusal.slug for refusal in REFUSALS])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no use in looking through it again and again
        end_with_parent()
        yield
        await intake.close()
        health.close()
        redis.close()

    endpoint = Receiver(settings, intake, metrics)
    app = _Application(
        title="Jobhook",
        version=__version__,
        summary="Receives JobsiteOn's webhooks and records them durably.",
        lifespan=lifespan,
        telemetry={"tracing": False},
    )
    app.router.routes.append(Route(PATH, endpoint))
    app.webhook = endpoint

    describe_webhook(app)

    @app.get("/healthz", summary="The process answers")
    async def healthz() -> dict[str, str]:  # needs no thread: those may all be waiting for Redis
        return {"status": "ok"}

    @app.get("/readyz", summary="Deliveries can be recorded", responses={503: {"description": "They cannot."}})
    def readyz(response: Response) -> dict[str, Any]:
        findings = health.check()
        ready = all(finding.level != "fail" for finding in findings)
        response.status_code = 200 if ready else 503
        return {
            "status": "ready" if ready else "not ready",
            "problems": [finding.as_dict() for finding in findings if finding.level != "ok"],
        }

    @app.get("/metrics", summary="Metrics in Prometheus' text format", response_class=Response)
    def scrape() -> Response:
        return Response(metrics.scrape(), media_type=CONTENT_TYPE)

    return app
