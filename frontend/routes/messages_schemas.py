"""Describe the bodies of the Messages API as JSON Schema."""

from __future__ import annotations

from frontend.endpoints.messages.validation import COUNT_REQUIRED, REQUIRED
from frontend.routes.json_schema import (
    BOOLEAN,
    COUNT,
    MODEL,
    NUMBER,
    OBJECT,
    RID,
    STRING,
    TOKEN_ID,
    Schema,
    array,
    call_body,
    exact_object,
    gated,
    nullable,
    one_of,
    open_object,
)

_TYPED: Schema = {"type": "object", "properties": {"type": STRING}, "required": ["type"]}
_TEXT: Schema = {"type": "object", "properties": {"type": one_of("text"), "text": STRING}, "required": ["type", "text"]}
_BLOCK: Schema = _TYPED | {"if": {"properties": {"type": {"const": "text"}}}, "then": {"required": ["text"]}}
_MESSAGE: Schema = {
    "type": "object",
    "properties": {"role": {"type": "string", "minLength": 1}, "content": {"anyOf": [STRING, array(_BLOCK)]}},
    "required": ["role", "content"],
}
_FORMAT: Schema = {"type": "object", "properties": {"format": nullable(OBJECT)}}
_COUNT: dict[str, Schema] = {
    "model": MODEL,
    "messages": array(_MESSAGE, minItems=1),
    "system": {"anyOf": [STRING, array(_TEXT)]},
    "tools": gated(array(OBJECT), "not empty:"),
    "tool_choice": gated(_TYPED, "any and tool:"),
    "thinking": OBJECT,
    "output_config": gated(_FORMAT, "a format:"),
    "output_format": gated(OBJECT, "always"),
}
_CALL: dict[str, Schema] = _COUNT | {
    "max_tokens": NUMBER,
    "stop_sequences": array(STRING),
    "stream": BOOLEAN,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": NUMBER,
    "metadata": OBJECT,
    "service_tier": STRING,
}
_ERROR = exact_object(type=one_of("error"), error=exact_object(type=STRING, message=STRING), request_id=RID)

MESSAGES_SCHEMAS: dict[str, Schema] = {
    "MessagesCall": call_body(list(REQUIRED), _CALL),
    "TokenCountCall": call_body(list(COUNT_REQUIRED), _COUNT),
    "Message": open_object(
        exact_object(
            id=RID,
            type=one_of("message"),
            role=STRING,
            model=STRING,
            content=array(_TYPED),
            stop_reason=nullable(STRING),
            stop_sequence=nullable(STRING),
            usage=OBJECT,
        )
    ),
    "MessageEvent": {
        "type": "object",
        "description": "one server-sent event; its data has its type. The last is message_stop, or error",
        "properties": {"id": TOKEN_ID, "event": STRING, "data": STRING},
        "required": ["event", "data"],
    },
    "TokenCount": open_object(exact_object(input_tokens=COUNT)),
    "MessageError": _ERROR,
}
