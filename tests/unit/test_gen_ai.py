"""The attributes of a request's span by the conventions for generative AI, from its labels and its record."""

from __future__ import annotations

from typing import Any

import pytest

from lifecycle.telemetry import gen_ai
from lifecycle.types import Labels, RequestRecord


def record(**fields: str) -> RequestRecord:
    raw = {
        "id": "r",
        "model": "m",
        "endpoint": "chat_completions",
        "request_type": "unary",
        "status": "completed",
        "on_disconnect": "cancel",
        "created_at": "100",
        "first_token_at": "100.5",
        "finished_at": "101",
        "output_tokens": "3",
        "finish_reason": "stop",
    }
    return RequestRecord.from_hash(raw | fields)


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("chat_completions", "chat m"),
        ("completions", "text_completion m"),
        ("responses", "chat m"),
        ("messages", "chat m"),
        ("embeddings", "embeddings m"),
        ("rerank", "rerank m"),
        ("my_agent", "my_agent m"),
    ],
)
def test_a_span_is_named_after_its_operation_and_model(endpoint: str, name: str) -> None:
    labels = Labels("m", endpoint, "unary")
    assert gen_ai.span_name(labels) == name
    assert gen_ai.request_attributes(labels) == {
        "gen_ai.operation.name": name.removesuffix(" m"),
        "gen_ai.provider.name": "lifecycle",
        "gen_ai.request.model": "m",
    }


def test_a_stream_has_the_time_to_its_first_chunk_and_no_other_request_has() -> None:
    name = "gen_ai.response.time_to_first_chunk"
    assert gen_ai.response_attributes(record(request_type="stream"))[name] == 0.5
    assert name not in gen_ai.response_attributes(record())
    assert name not in gen_ai.response_attributes(record(request_type="stream", first_token_at=""))
    assert gen_ai.request_attributes(Labels("m", "completions", "stream"))["gen_ai.request.stream"] is True


def test_without_a_report_the_generated_tokens_are_the_events() -> None:
    found = gen_ai.response_attributes(record())
    assert {name: value for name, value in found.items() if "usage" in name} == {"gen_ai.usage.output_tokens": 3}


def test_what_generates_no_text_has_neither_a_finish_reason_nor_unreported_tokens() -> None:
    found = gen_ai.response_attributes(record(endpoint="embeddings", input_tokens="8", usage='{"prompt_tokens":8}'))
    assert found == {
        "gen_ai.response.id": "r",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 8,
    }


@pytest.mark.parametrize("details", [None, [], "16", {"cached_tokens": None}, {"cached_tokens": -1}, {"other": 1}])
def test_details_that_are_no_numbers_are_left_out(details: Any) -> None:
    found = gen_ai.response_attributes(record()._replace(usage={"prompt_tokens_details": details}))
    assert "gen_ai.usage.cache_read.input_tokens" not in found


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_generation_that_did_not_finish_says_so(status: str) -> None:
    found = gen_ai.response_attributes(record(status=status, finish_reason="", first_token_at=""))
    assert found == {"gen_ai.response.finish_reasons": ("error",), "gen_ai.usage.output_tokens": 3}
