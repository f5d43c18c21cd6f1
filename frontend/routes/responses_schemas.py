"""Describe the bodies of the Responses API as JSON Schema."""

from __future__ import annotations

from typing import Any

from frontend.endpoints.responses.validation import METADATA_KEY_CHARS, METADATA_PAIRS, METADATA_VALUE_CHARS
from frontend.routes.json_schema import (
    BOOLEAN,
    COUNT,
    MODEL,
    NUMBER,
    OBJECT,
    ONLY_MODEL,
    RID,
    STRING,
    TOKEN_ID,
    Schema,
    array,
    call_body,
    exact_object,
    gated,
    listing,
    nullable,
    one_of,
    open_object,
)
from lifecycle.formats.response_object import new_response

STATUSES = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")

_TYPED: Schema = {"type": "object", "properties": {"type": STRING}, "required": ["type"]}
_ITEM: Schema = {
    "type": "object",
    "properties": {"type": nullable(STRING), "role": STRING, "content": {"anyOf": [STRING, array(_TYPED)]}},
    "if": {"properties": {"type": {"enum": ["message", None]}}},
    "then": {"required": ["role", "content"]},
}
_METADATA: Schema = {
    "type": "object",
    "maxProperties": METADATA_PAIRS,
    "propertyNames": {"maxLength": METADATA_KEY_CHARS},
    "additionalProperties": STRING | {"maxLength": METADATA_VALUE_CHARS},
}
_EITHER: Schema = {"anyOf": [STRING, OBJECT]}
_FORMAT: Schema = {"type": "object", "properties": {"format": nullable(_TYPED)}}
_CALL: dict[str, Schema] = {
    "model": MODEL | {"description": ONLY_MODEL},
    "input": {"anyOf": [STRING, array(_ITEM)], "description": "or one of previous_response_id, prompt, conversation"},
    "instructions": STRING,
    "stream": BOOLEAN,
    "stream_options": OBJECT | {"description": "only with stream true"},
    "background": BOOLEAN | {"description": "true: not with store false"},
    "store": BOOLEAN,
    "previous_response_id": {"type": "string", "minLength": 1},
    "context_management": gated({"type": "array"}, "always"),
    "conversation": gated(_EITHER, "always"),
    "prompt": gated(OBJECT, "always"),
    "include": array(STRING),
    "metadata": _METADATA,
    "max_output_tokens": NUMBER,
    "max_tool_calls": NUMBER,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_logprobs": gated(NUMBER, "above 0:"),
    "reasoning": OBJECT,
    "text": gated(_FORMAT, "another format than text:"),
    "tools": gated(array(_TYPED), "not empty:"),
    "tool_choice": gated(_EITHER, "other than none and auto:"),
    "parallel_tool_calls": BOOLEAN,
    "truncation": STRING,
    "service_tier": STRING,
    "safety_identifier": STRING,
    "prompt_cache_key": STRING,
    "user": STRING,
}


def _response() -> Schema:
    """Describe the response object. What the client or the engine decides about may have any value."""
    fields: dict[str, Any] = {name: {} for name in new_response("", 0, {}, "")}
    fields |= {
        "id": RID,
        "object": one_of("response"),
        "created_at": COUNT,
        "status": one_of(*STATUSES),
        "error": nullable(open_object(exact_object(code=STRING, message=STRING))),
        "output": {"type": "array"},
        "background": BOOLEAN,
        "store": BOOLEAN,
        "usage": nullable(OBJECT),
    }
    return open_object(exact_object(**fields))


RESPONSES_SCHEMAS: dict[str, Schema] = {
    "ResponseCall": call_body([], _CALL),
    "Response": _response(),
    "ResponseEvent": {
        "type": "object",
        "description": "one server-sent event; its data has its type and a sequence_number",
        "properties": {"id": TOKEN_ID, "event": STRING, "data": STRING},
        "required": ["event", "data"],
    },
    "Deleted": exact_object(id=RID, object=one_of("response"), deleted=BOOLEAN),
    "InputItems": listing(
        open_object(exact_object(type=STRING, id=STRING)),
        first_id=nullable(STRING),
        last_id=nullable(STRING),
        has_more=BOOLEAN,
    ),
}
