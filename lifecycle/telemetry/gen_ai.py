"""Describe a request by OpenTelemetry's semantic conventions for generative AI.

The names are those of the span `gen_ai.client.inference` in https://github.com/open-telemetry/semantic-conventions-genai,
which replaces the part for generative AI of the general conventions, at its commit 024a4f9 (it refers to the general
conventions 1.44.0). All have the stability Development, except `error.type`, which is stable.

Only the request's span has these attributes: by the conventions it covers the whole operation with all retries, and
backends that add up usage would count an attempt's a second time. No attribute contains a prompt or an answer.

- `gen_ai.provider.name` is `lifecycle`. It tells the flavour of the telemetry, not who made the model: a worker may run
  any engine, and the frontend does not know which.
- `gen_ai.operation.name` is one of the predefined values where one applies, otherwise the name of the endpoint.
- `error.type` is the record's `error_type`: the list in docs/reference/errors.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from opentelemetry.util.types import AttributeValue

from lifecycle.types import Labels, RequestRecord, RequestType, Status, reported_tokens

PROVIDER = "lifecycle"
_OPERATIONS = {
    "chat_completions": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
}
_GENERATING = frozenset({"chat", "text_completion"})
_ABNORMAL = "error"  # the finish reason of a generation that was not finished
_DETAILS = (
    ("prompt_tokens_details", "cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("prompt_tokens_details", "audio_tokens", "gen_ai.usage.audio.input_tokens"),
    ("completion_tokens_details", "reasoning_tokens", "gen_ai.usage.reasoning.output_tokens"),
    ("completion_tokens_details", "audio_tokens", "gen_ai.usage.audio.output_tokens"),
)


def operation_of(endpoint: str) -> str:
    """Return the name of the operation that an endpoint offers."""
    return _OPERATIONS.get(endpoint, endpoint)


def span_name(labels: Labels) -> str:
    """Return the name of the request's span, such as `chat llama-3`. Models are bounded as metric labels are."""
    return f"{operation_of(labels.endpoint)} {labels.model}"


def request_attributes(labels: Labels) -> dict[str, AttributeValue]:
    """Return what is known at admission, for samplers too."""
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation_of(labels.endpoint),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": labels.model,
    }
    if labels.request_type == RequestType.STREAM:
        attributes["gen_ai.request.stream"] = True
    return attributes


def response_attributes(record: RequestRecord) -> dict[str, AttributeValue]:
    """Return what the terminal record adds. What is unknown is left out."""
    attributes = dict(_usage(record))
    if record.status is Status.COMPLETED or record.first_token_at is not None:
        attributes["gen_ai.response.id"] = record.id
        attributes["gen_ai.response.model"] = record.model
    if record.request_type == RequestType.STREAM and record.first_token_secs is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = record.first_token_secs
    reason = record.finish_reason if record.status is Status.COMPLETED else _ABNORMAL
    if reason and operation_of(record.endpoint) in _GENERATING:
        attributes["gen_ai.response.finish_reasons"] = (reason,)
    return attributes


def _usage(record: RequestRecord) -> Iterator[tuple[str, AttributeValue]]:
    """Yield the numbers of tokens. Generated ones are counted by events where the engine reports no number."""
    if record.input_tokens is not None:
        yield "gen_ai.usage.input_tokens", record.input_tokens
    reported = reported_tokens(record.usage, "completion_tokens")
    if reported is not None or operation_of(record.endpoint) in _GENERATING:
        yield "gen_ai.usage.output_tokens", record.output_tokens
    for group, name, attribute in _DETAILS:
        details = record.usage.get(group) if record.usage else None
        number = reported_tokens(details, name) if isinstance(details, dict) else None
        if number is not None:
            yield attribute, number
