"""Describe the request and response bodies of the HTTP API as JSON Schema."""

from __future__ import annotations

from frontend.routes.json_schema import (
    BOOLEAN,
    COUNT,
    ENDPOINT_NAME,
    INTEGER,
    LABEL,
    MODEL,
    NUMBER,
    OBJECT,
    RID,
    SECS,
    STRING,
    TOKEN_ID,
    Schema,
    array,
    call_body,
    exact_object,
    gated,
    integer,
    listing,
    nullable,
    one_of,
    open_object,
    ref,
)
from frontend.routes.messages_schemas import MESSAGES_SCHEMAS
from frontend.routes.responses_schemas import RESPONSES_SCHEMAS
from frontend.transport.params import REASON_CHARS
from lifecycle.queries.bulk_cancel import PAGE_MAX, STATUSES
from lifecycle.types import (
    NATIVE,
    TRANSLATED,
    CancelMode,
    ErrorType,
    OnDisconnect,
    ReplicaState,
    RequestType,
    Role,
    Status,
)

_PART = {
    "type": "object",
    "properties": {"type": STRING, "text": STRING},
    "required": ["type"],
    "if": {"properties": {"type": {"const": "text"}}},
    "then": {"required": ["text"]},
}
_CONTENT = {"anyOf": [STRING, array(_PART, minItems=1)]}
_SPEAKS = {"properties": {"content": _CONTENT}, "required": ["content"]}
_MESSAGE = {
    "type": "object",
    "properties": {"role": {"type": "string", "minLength": 1}, "content": nullable(_CONTENT)},
    "required": ["role"],
    "if": {"properties": {"role": one_of("system", "developer", "user", "tool")}},
    "then": _SPEAKS,
}
_COMMON = {
    "model": MODEL,
    "stream": BOOLEAN,
    "stream_options": exact_object([], include_usage=BOOLEAN, include_obfuscation=BOOLEAN)
    | {"additionalProperties": True, "description": "only with stream true"},
    "temperature": NUMBER,
    "top_p": NUMBER,
    "max_tokens": NUMBER,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "seed": NUMBER,
    "stop": {"anyOf": [STRING, {"type": "array"}]},
    "n": gated(NUMBER, "above 1:"),
    "logit_bias": {"anyOf": [OBJECT, {"type": "array"}]},
    "user": STRING,
}
_CHOICE = gated({"anyOf": [STRING, OBJECT]}, "other than none and auto:")
_CHAT = {
    "messages": array(_MESSAGE, minItems=1),
    "max_completion_tokens": NUMBER,
    "logprobs": gated(BOOLEAN, "true:"),
    "top_logprobs": gated(NUMBER, "above 0:"),
    "tools": gated({"type": "array"}, "not empty:"),
    "functions": gated({"type": "array"}, "not empty:"),
    "tool_choice": _CHOICE,
    "function_call": _CHOICE,
    "parallel_tool_calls": BOOLEAN,
    "modalities": gated(array(STRING), "audio:"),
    "audio": gated(OBJECT, "always"),
    "prediction": gated(OBJECT, "always"),
    "web_search_options": gated(OBJECT, "always"),
    "response_format": gated(OBJECT, "other than text:"),
    "reasoning_effort": STRING,
    "service_tier": STRING,
    "metadata": OBJECT,
    "store": BOOLEAN,
}
_TEXT = {
    "prompt": gated(
        {"anyOf": [STRING, array(STRING, minItems=1), array(INTEGER, minItems=1)]}, "several texts, or token ids:"
    ),
    "logprobs": gated({"anyOf": [NUMBER, BOOLEAN]}, "other than false:"),
    "best_of": gated(NUMBER, "above 1:"),
    "echo": gated(BOOLEAN, "true:"),
    "suffix": gated(STRING, "not empty:"),
}


_ERROR_FIELDS = {"message": STRING, "type": STRING, "code": nullable({}), "param": nullable(STRING)}
_ADMITTED = {"error_type": one_of(*ErrorType), "request_id": RID}
_USAGE = exact_object(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
_CHOSEN = {"index": COUNT, "logprobs": nullable({}), "finish_reason": STRING}


def _completion(kind: str, **answer: Schema) -> Schema:
    return exact_object(
        id=RID,
        object=one_of(kind),
        created=COUNT,
        model=STRING,
        choices=array(open_object(exact_object(**answer, **_CHOSEN))),
        usage=open_object(_USAGE),
    ) | {"additionalProperties": True}


_GROUP = exact_object(
    model=STRING,
    endpoint=ENDPOINT_NAME,
    request_type=one_of(*RequestType),
    queued=COUNT,
    running=COUNT,
    inflight=COUNT,
)
_WAITING: dict[str, Schema] = {"queued": COUNT, "oldest_secs": SECS}
_QUEUE_OWNER = exact_object(owner=STRING, weight=NUMBER, **_WAITING, estimated_wait_secs=nullable(SECS))
_SELECTOR = {
    "model": LABEL | {"minLength": 1},
    "endpoint": ENDPOINT_NAME,
    "status": one_of(*STATUSES),
    "frontend": LABEL | {"minLength": 1},
    "worker": LABEL | {"minLength": 1},
    "owner": LABEL | {"minLength": 1},
    "older_than_secs": SECS,
}
_CANCEL = {"mode": one_of(*CancelMode), "reason": {"type": "string", "maxLength": REASON_CHARS}}

_REQUEST: dict[str, Schema] = {
    "id": RID,
    "object": one_of("request"),
    "model": STRING,
    "endpoint": ENDPOINT_NAME,
    "request_type": one_of(*RequestType),
    "status": one_of(*Status),
    "error_type": one_of(*ErrorType),
    "error_message": nullable(STRING),
    "cancel_requested_at": nullable(SECS),
    "cancel_reason": nullable(STRING),
    "cancel_mode": nullable(one_of(*CancelMode)),
    "on_disconnect": one_of(*OnDisconnect),
    "frontend": nullable(STRING),
    "worker": nullable(STRING),
    "attempt": COUNT,
    "created_at": SECS,
    "started_at": nullable(SECS),
    "first_token_at": nullable(SECS),
    "last_token_at": nullable(SECS),
    "finished_at": nullable(SECS),
    "output_tokens": COUNT,
    "finish_reason": nullable(STRING),
    "owner": nullable(STRING),
    "cancelled_by": nullable(STRING),
    "cancelled_via": nullable(STRING),
    "usage": nullable(OBJECT),
    "output_events": COUNT,
    "parent": nullable(RID),
    "labels": {"type": "object", "additionalProperties": STRING},
    "priority": INTEGER,
    "preemptions": COUNT,
}
_OF_QUEUED: dict[str, Schema] = {
    "queue_position": integer(1, 2**53),
    "estimated_wait_secs": nullable(SECS),
}

_REPLICA: dict[str, Schema] = {
    "id": STRING,
    "role": one_of(*Role),
    "host": STRING,
    "pid": COUNT,
    "started_at": SECS,
    "lease_expires_in_ms": INTEGER,
    "state": one_of(*ReplicaState),
    "inflight": COUNT,
    "models": array(STRING),
    "concurrency": nullable(COUNT),
    "url": nullable(STRING),
}
_OF_WORKERS: dict[str, Schema] = {
    "error": STRING,  # only of one whose engine cannot serve
    "endpoints": {"type": "object", "additionalProperties": one_of(NATIVE, TRANSLATED)},
}
SCHEMAS: dict[str, Schema] = {
    "ChatCall": call_body(["model", "messages"], _COMMON | _CHAT),
    "TextCall": call_body(["model", "prompt"], _COMMON | _TEXT),
    "ForwardedCall": call_body(
        [], {"model": _COMMON["model"] | {"description": "may be left out if there is only one"}}
    ),
    "ChatCompletion": _completion(
        "chat.completion",
        message=open_object(exact_object(role=STRING, content=nullable({}), refusal=nullable(STRING))),
    ),
    "TextCompletion": _completion("text_completion", text=STRING),
    "Event": {
        "type": "object",
        "description": "one server-sent event; the last has the data [DONE]; an error frame comes right before it",
        "properties": {"id": TOKEN_ID, "data": STRING},
        "required": ["data"],
    },
    **RESPONSES_SCHEMAS,
    **MESSAGES_SCHEMAS,
    "Error": exact_object(error=exact_object(list(_ERROR_FIELDS), **_ERROR_FIELDS, **_ADMITTED)),
    "Model": exact_object(
        ["id", "object", "created", "owned_by"],
        id=STRING,
        object=one_of("model"),
        created=COUNT,
        owned_by=STRING,
        max_model_len=COUNT,
    ),
    "Request": exact_object(list(_REQUEST), **_REQUEST, **_OF_QUEUED),
    "TimelineEntry": open_object(exact_object(at=SECS, what=STRING)),
    "Tree": listing(
        exact_object(
            id=RID,
            parent=nullable(RID),
            depth=COUNT,
            model=STRING,
            endpoint=ENDPOINT_NAME,
            status=one_of(*Status),
            error_type=one_of(*ErrorType),
            cancel_requested_at=nullable(SECS),
            cancelled_by=nullable(STRING),
            created_at=SECS,
            finished_at=nullable(SECS),
        ),
        has_more=BOOLEAN,
    ),
    "Cancel": {"type": "object", "properties": {**_CANCEL, "wait_ms": integer(0, 30_000)}},
    "Selector": exact_object([], **_SELECTOR, **_CANCEL, dry_run=BOOLEAN, limit=integer(1, PAGE_MAX), after=RID)
    | {"anyOf": [{"required": [name]} for name in _SELECTOR]},
    "Cancelled": listing(ref("Request"), matched=COUNT, requested=COUNT, dry_run=BOOLEAN, has_more=BOOLEAN),
    "Inflight": exact_object(
        object=one_of("inflight"),
        total=COUNT,
        queued=COUNT,
        running=COUNT,
        groups=array(_GROUP),
        frontends=array(exact_object(id=STRING, inflight=COUNT, lease_expires_in_ms=INTEGER)),
        as_of=SECS,
    ),
    "ModelQueue": exact_object(model=STRING, **_WAITING, drain_per_sec=NUMBER, owners=array(_QUEUE_OWNER)),
    "Replica": exact_object(list(_REPLICA), **_REPLICA, **_OF_WORKERS),
    "Health": {
        "type": "object",
        "properties": {"status": STRING, "reason": STRING, "reasserting": array(INTEGER)},
        "required": ["status"],
    },
}
