"""The usage of an answer: chat's names and those of Responses."""

from __future__ import annotations

from openai.types.responses.response_usage import ResponseUsage

from lifecycle.formats.responses_usage import to_chat_usage, to_responses_usage

CHAT = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
RESPONSES = {
    "input_tokens": 5,
    "output_tokens": 7,
    "total_tokens": 12,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def test_each_name_has_its_counterpart_in_both_directions() -> None:
    assert to_responses_usage(CHAT) == RESPONSES
    assert to_chat_usage(RESPONSES) == CHAT
    assert to_responses_usage(None) is None
    assert to_chat_usage(None) is None


def test_what_an_engine_does_not_report_is_zero_because_the_sdk_requires_it() -> None:
    usage = to_responses_usage({"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": None})
    assert ResponseUsage.model_validate(usage, strict=True).to_dict() == {
        "input_tokens": 5,
        "output_tokens": 7,
        "total_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_vendors_fields_are_kept() -> None:
    usage = to_responses_usage({**CHAT, "queue_time": 0.5, "completion_tokens_details": {"audio_tokens": 4}})
    assert usage is not None
    assert usage["queue_time"] == 0.5
    assert usage["output_tokens_details"] == {"audio_tokens": 4, "reasoning_tokens": 0}
