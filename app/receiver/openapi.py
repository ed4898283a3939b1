"""What the OpenAPI document says of the webhook endpoint, which FastAPI does not see into."""

from typing import Any

from fastapi import FastAPI

from app.delivery.scheme import Scheme
from app.receiver.endpoint import PATH
from app.receiver.refusals import REFUSALS, RETRY_AFTER_SECONDS, Unavailable

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
    },
}
_RECEIPT = {
    "type": "object",
    "required": ["status", "id"],
    "properties": {
        "status": {
            "type": "string",
            "enum": ["accepted", "duplicate", "conflict"],
            "description": "accepted: a new event. duplicate: known, nothing to do. "
            "conflict: a known event id with another type or business object, kept as an event of its own.",
        },
        "id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
}
_LISTENING = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"type": "string", "enum": ["listening"]}},
}


def describe_webhook(app: FastAPI, scheme: Scheme) -> None:
    """Adds the endpoint, whose deliveries are signed by `scheme`, to the application's OpenAPI document."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document["paths"].setdefault(PATH, {"post": _operation(scheme), "get": _try()})
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _operation(scheme: Scheme) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {
            "description": "Recorded, as durably as configured.",
            "content": {"application/json": {"schema": _RECEIPT}},
        }
    }
    for refusal in REFUSALS:
        response = responses.setdefault(str(refusal.status), _response())
        response["description"] = f"{response['description']} {refusal.title}".strip()
        response["content"]["application/problem+json"]["examples"][refusal.slug] = {"value": refusal.problem()}
    responses[str(Unavailable.status)]["headers"] = {
        "Retry-After": {"schema": {"type": "integer", "example": RETRY_AFTER_SECONDS}}
    }
    return {
        "summary": "Receive a JobsiteOn webhook",
        "operationId": "receive_jobsiteon_webhook",
        "description": "Verifies the signature, records the event, answers. The content is never a reason to refuse.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
            for name, text in (
                (scheme.header, f"HMAC of `{scheme.content}` with the API key, written as the receiver is configured."),
                (scheme.timestamp_header, "The timestamp that is signed."),
                (scheme.id_header, "The id that is signed."),
            )
            if name
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}, "*/*": {"schema": {}}}},
        "responses": responses,
    }


def _try() -> dict[str, Any]:
    return {
        "summary": "Find out whether webhooks are received here",
        "operationId": "try_jobsiteon_webhook",
        "responses": {
            "200": {"description": "They are.", "content": {"application/json": {"schema": _LISTENING}}},
            "403": _response() | {"description": "Not over HTTPS, or from an address that is not accepted."},
        },
    }


def _response() -> dict[str, Any]:
    return {"description": "", "content": {"application/problem+json": {"schema": _PROBLEM, "examples": {}}}}
