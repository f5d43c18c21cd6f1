"""Write the bodies of webhooks. For responses they are those of OpenAI's webhooks."""

from __future__ import annotations

from typing import Any

import orjson

from lifecycle.store.webhooks import WebhookEvent
from lifecycle.types import Endpoint, Status

_INCOMPLETE = frozenset({"length", "content_filter"})  # reasons for which OpenAI calls a response incomplete


def event_type(event: WebhookEvent) -> str:
    """Return the type: `response.` or `request.`, and how it ended."""
    if event.endpoint != Endpoint.RESPONSES:
        return f"request.{event.status}"
    if event.status is Status.COMPLETED and event.finish_reason in _INCOMPLETE:
        return "response.incomplete"
    return f"response.{event.status}"


def event_body(event: WebhookEvent) -> bytes:
    """Return the body as JSON. It is the same for each delivery of the event."""
    data: dict[str, Any] = {"id": event.rid}
    if event.endpoint != Endpoint.RESPONSES:
        data |= {
            "endpoint": event.endpoint,
            "model": event.model,
            "status": event.status,
            "error_type": event.error_type,
            "finish_reason": event.finish_reason or None,
            "created_at": event.created_at,
            "finished_at": event.finished_at,
        }
    body = {
        "id": event.id,
        "object": "event",
        "created_at": int(event.finished_at),
        "type": event_type(event),
        "data": data,
    }
    return orjson.dumps(body)
