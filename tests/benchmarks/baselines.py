"""What a user would otherwise write: the applications that Jobhook is measured against."""

import hashlib
import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from redis import Redis
from rq import Queue
from rq.exceptions import DuplicateJobError
from starlette.types import Receive, Scope, Send

from app.receiver.endpoint import PATH

KEY = os.environ.get("JOBSITEON_API_KEY", "").encode()
ONE_DAY = 86400


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Bare ASGI on uvicorn: reads the body and answers. What the server itself costs."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def hello() -> FastAPI:
    """FastAPI "hello": a route that reads the body and answers. Nothing is verified, nothing is kept."""
    app = FastAPI()

    @app.post(PATH)
    async def receive(request: Request) -> dict[str, str]:
        await request.body()
        return {"status": "ok"}

    return app


def _application(enqueue: Callable[[Queue, "Redis", str, str], None]) -> FastAPI:
    redis = Redis.from_url(os.environ["REDIS_URL"])
    queue = Queue("naive", connection=redis)
    app = FastAPI()

    @app.post(PATH)
    async def receive(request: Request) -> dict[str, Any]:
        body = await request.body()
        expected = hmac.new(KEY, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
            raise HTTPException(401)
        event = await request.json()
        enqueue(queue, redis, event["id"], body.decode())
        return {"status": "ok"}

    return app


def naive() -> FastAPI:
    """FastAPI + RQ as in tutorials: SET NX for duplicates, then enqueue."""

    def enqueue(queue: Queue, redis: "Redis", id: str, body: str) -> None:
        if redis.set(f"seen:{id}", 1, nx=True, ex=ONE_DAY):
            queue.enqueue("json.loads", body)

    return _application(enqueue)


def unique() -> FastAPI:
    """FastAPI + RQ with `unique=True`, the event's id as the job's."""

    def enqueue(queue: Queue, _: "Redis", id: str, body: str) -> None:
        with suppress(DuplicateJobError):
            queue.enqueue("json.loads", body, job_id=id, unique=True)

    return _application(enqueue)
