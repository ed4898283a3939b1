"""The application: what is assembled from which parts. Nothing happens at import."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.config.reload import LOOK_SECONDS, Reloader
from app.config.settings import Settings
from app.config.sources import load_settings
from app.delivery.scheme import Scheme
from app.errors import ConfigError, describe
from app.inbox.inbox import Inbox
from app.inbox.measured import measured
from app.ops import logs
from app.ops.hangup import on_hangup
from app.ops.health import COMMAND_SECONDS, Health, refuse_to_start
from app.ops.keys import measure, reloading
from app.ops.messenger import is_installed
from app.ops.metrics import CONTENT_TYPE, Metrics
from app.ops.parent import end_with_parent
from app.ops.problems import Check
from app.ops.rounds import Rounds
from app.ops.watch import LOOK_SECONDS as ALERT_SECONDS
from app.ops.watch import look_instead
from app.receiver.endpoint import PATHS, Receiver
from app.receiver.intake import Intake
from app.receiver.keys import TELL_SECONDS, Keys
from app.receiver.openapi import describe_webhook
from app.receiver.refusals import REFUSALS, ReadOnly, Refusal, Unexpected
from app.receiver.rejections import DROPPED, FAULTS, Rejections
from app.store.connections import connect

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

log = structlog.stdlib.get_logger(__name__)


class _Application(FastAPI):
    """FastAPI, with a short way for the one path that has to be fast.

    The endpoint needs nothing of what the middleware stack does; walking through it costs more than
    verifying and recording together.
    """

    webhook: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif scope["path"] in PATHS:
            await self.webhook(scope, receive, send)
        else:
            if scope["method"] == "HEAD":  # the server, which has the original scope, leaves out the body
                scope = {**scope, "method": "GET"}
            try:
                await super().__call__(scope, receive, send)
            except Exception as error:  # noqa: BLE001 - it has been answered; its text may hold anything (P7)
                log.critical("unexpected error", **describe(error))


def application() -> FastAPI:
    """What a process of `jobhook serve` serves. If it cannot, it says so in a line, and ends."""
    try:
        return create_app()
    except ConfigError as error:
        log.critical("cannot start", reason=str(error))
        # uvicorn's own code for this would end the processes beside it too. So it starts another one in its place.
        sys.exit(1)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The receiver, as an ASGI application. `jobhook serve` runs it, with the limits of `app/receiver/http.py`.

    Raises:
        ConfigError: the settings, or the Redis they name, cannot be used.
    """
    reloads = settings is None
    settings = settings or load_settings()
    logs.configure(settings)
    redis = connect(settings.redis_url, timeout=COMMAND_SECONDS)
    refuse_to_start(settings, redis)
    inbox = Inbox(redis, settings)
    health = Health(settings)
    intake = Intake(settings)
    metrics = Metrics(
        inbox.stats,
        lambda: measure(reloader.settings, redis),
        lambda: reloader.problem is None,
        lambda: measured(redis),
        [refusal.slug for refusal in REFUSALS],
        FAULTS,
        DROPPED,
    )
    keys = Keys(settings, metrics.verified)

    def use(changed: Settings) -> None:
        keys.use(changed)
        health.settings = changed

    reloader = Reloader(settings, use)
    watching, telling = Rounds("keys", LOOK_SECONDS, reloader.look), Rounds("use of keys", TELL_SECONDS, keys.tell)
    rejections = Rejections(settings, metrics.not_kept)

    def stand_in() -> None:
        """Looks for alerts where the workers' supervisors are gone: nobody else could tell that."""
        look_instead(reloader.settings, redis)

    standing_in = Rounds("alerts", ALERT_SECONDS, stand_in)
    tells = bool(settings.alert_urls) and is_installed()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no use in looking through it again and again
        end_with_parent()
        await intake.start()
        telling.start()
        if tells:
            standing_in.start()
        if reloads:
            watching.start()
            on_hangup(reloader.ask, watching.wake)
        yield
        await intake.close()
        for ending in (watching, telling, standing_in, keys):
            await asyncio.to_thread(ending.close)
        await rejections.close()
        health.close()
        redis.close()

    endpoint = Receiver(settings, keys, intake, metrics, rejections)
    app = _assemble(
        settings.signature_scheme, lambda: [*reloading(reloader), *health.check()], metrics.scrape, lifespan
    )
    app.webhook = endpoint
    app.router.routes += [Route(path, endpoint) for path in PATHS]  # for an application that mounts this one
    app.router.default = endpoint.nowhere
    return app


def openapi(scheme: Scheme) -> dict[str, Any]:
    """The OpenAPI document of a receiver of deliveries that are signed by `scheme`. Needs no Redis."""
    return _assemble(scheme, list, bytes).openapi()


def _assemble(
    scheme: Scheme,
    findings: Callable[[], list[Check]],
    scrape: Callable[[], bytes],
    lifespan: Lifespan | None = None,
) -> _Application:
    """Everything but the webhook endpoint itself."""
    app = _Application(
        title="Jobhook",
        version=__version__,
        summary="Receives JobsiteOn's webhooks and records them durably.",
        lifespan=lifespan,
        telemetry={"tracing": False},
        openapi_url=None,  # `jobhook openapi` prints it
        redirect_slashes=False,  # a redirect would lose a delivery, and lead wherever the Host header says
        exception_handlers={405: _problem(ReadOnly), Exception: _problem(Unexpected)},
    )
    describe_webhook(app, scheme)

    @app.get("/", include_in_schema=False)
    def about() -> Response:
        return PlainTextResponse("Jobhook receives JobsiteOn's webhooks.\n")

    @app.get("/healthz", summary="The process answers")
    async def healthz() -> dict[str, str]:  # needs no thread: those may all be waiting for Redis
        return {"status": "ok"}

    @app.get("/readyz", summary="Deliveries can be recorded", responses={503: {"description": "They cannot."}})
    def readyz(response: Response) -> dict[str, Any]:
        found = findings()
        ready = all(finding.level != "fail" for finding in found)
        response.status_code = 200 if ready else 503
        return {
            "status": "ready" if ready else "not ready",
            "problems": [finding.as_dict() for finding in found if finding.level != "ok"],
        }

    @app.get("/metrics", summary="Metrics in Prometheus' text format", response_class=Response)
    def metrics() -> Response:
        return Response(scrape(), media_type=CONTENT_TYPE)

    return app


def _problem(refusal: type[Refusal]) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    """Answers an exception with a refusal."""

    async def respond(_request: Request, _error: Exception) -> Response:
        response = Response(status_code=refusal.status)
        response.raw_headers, response.body = refusal.response()
        return response

    return respond
