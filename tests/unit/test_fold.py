"""A unary answer is the fold of the request's events, and equals what a server's own unary call gives."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from frontend.endpoints.completions.fold import CompletionFold
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint

CHAT, TEXT = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS
RECORDED = Path(__file__).parents[1] / "recorded"
ENVELOPE = ("id", "object", "created", "model")


def fold(events: list[Any], endpoint: Endpoint = CHAT, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    folded = CompletionFold(endpoint)
    folded.add(events)
    body = folded.body("r-1", "m", 1, End("completed", "", "", "stop", len(events), usage=usage))
    assert orjson.loads(orjson.dumps(body)) == body
    return body


def delta(index: int = 0, finish_reason: str | None = None, /, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish_reason}]}


def message(*events: Any) -> dict[str, Any]:
    found: dict[str, Any] = fold(list(events))["choices"][0]["message"]
    return {name: value for name, value in found.items() if name != "refusal" or value is not None}


def recorded(name: str) -> tuple[list[Any], dict[str, Any] | None]:
    """Return the events of a recorded stream as a worker yields them, and its usage."""
    lines = (RECORDED / name).read_bytes().split(b"\n")
    chunks = [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    usage = [chunk.get("usage") for chunk in chunks][-1]
    return [{n: v for n, v in chunk.items() if n not in (*ENVELOPE, "usage")} for chunk in chunks], usage


def without_nulls(value: Any) -> Any:
    """Return the value without fields that are null, and without an empty content."""
    if isinstance(value, dict):
        kept = {n: without_nulls(v) for n, v in value.items() if v is not None}
        return {n: v for n, v in kept.items() if n != "content" or v != ""}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_the_fold_of_a_recorded_stream_is_the_recorded_unary_answer() -> None:
    """But for ids and times. The server re-encodes a tool's arguments, so they differ too."""
    events, usage = recorded("vllm_tools_required.sse")
    found = without_nulls(fold(events, usage=usage))
    expected = without_nulls(orjson.loads((RECORDED / "vllm_tools_required.json").read_bytes()))
    for answer in (found, expected):
        for name in ("id", "created"):
            del answer[name]
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert call.pop("id").startswith("chatcmpl-tool-")
        assert call["function"].pop("arguments")
    assert found == expected


@pytest.mark.parametrize("name", ["vllm_n2_logprobs.sse", "llama_n2_logprobs.sse", "vllm_reasoning.sse"])
def test_the_fold_of_every_recorded_stream_is_what_its_pieces_add_up_to(name: str) -> None:
    events, usage = recorded(name)
    body = fold(events, usage=usage)
    ChatCompletion.model_validate(body, strict=True)
    assert {n: body["usage"][n] for n in usage or {}} == (usage or {})
    for choice in body["choices"]:
        pieces = [c for event in events for c in event["choices"] if c["index"] == choice["index"]]
        for field in ("content", "reasoning"):
            expected = "".join(piece["delta"].get(field) or "" for piece in pieces)
            assert (choice["message"].get(field) or "") == expected
        tokens = [token for piece in pieces for token in (piece.get("logprobs") or {}).get("content") or []]
        assert ((choice["logprobs"] or {}).get("content") or []) == tokens
        assert choice["finish_reason"] == [p["finish_reason"] for p in pieces if p["finish_reason"]][-1]


def test_texts_and_objects_mix() -> None:
    body = fold(["a", delta(content="b"), "c", delta(0, "length")])
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "abc", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]


def test_tool_calls_merge_by_their_index() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
    events = [
        delta(role="assistant", content=None, tool_calls=[{"index": 0, **call}]),
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up"}}]),
        delta(tool_calls=[{"index": 1, **call, "id": "c2"}, {"index": 0, "function": {"arguments": '{"a":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
        delta(0, "tool_calls"),
    ]
    assert message(*events) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a":1}'}},
            {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": ""}},
        ],
    }
    assert "index" in events[0]["choices"][0]["delta"]["tool_calls"][0], "the events belong to other readers too"


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([delta(refusal="I "), delta(refusal="cannot")], {"content": None, "refusal": "I cannot"}),
        ([delta(content=[{"type": "a"}]), delta(content=[{"type": "b"}])], {"content": [{"type": "a"}, {"type": "b"}]}),
        (
            [delta(content=[{"type": "thinking"}]), "x", delta(content="y")],
            {"content": [{"type": "thinking"}, {"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
        ),
        (["x", delta(content=[{"type": "b"}])], {"content": [{"type": "text", "text": "x"}, {"type": "b"}]}),
        ([delta(role=""), delta(role="tool"), delta(role="user")], {"role": "tool", "content": ""}),
        (
            [delta(audio={"id": "a", "data": "x"}), delta(audio={"id": "b", "data": "y"})],
            {"content": None, "audio": {"id": "a", "data": "xy"}},
        ),
        ([delta(score=1), delta(score=2), delta(score=None)], {"content": None, "score": 2}),
    ],
)
def test_how_values_fold(events: list[Any], expected: dict[str, Any]) -> None:
    assert message(*events) == {"role": "assistant"} | expected


def test_several_choices_are_in_order_and_each_has_a_finish_reason() -> None:
    body = fold([delta(1, content="b"), delta(0, content="a"), delta(1, "length"), delta(0, content="!")])
    assert [c["index"] for c in body["choices"]] == [0, 1]
    assert [c["message"]["content"] for c in body["choices"]] == ["a!", "b"]
    assert [c["finish_reason"] for c in body["choices"]] == ["stop", "length"]


def test_fields_beside_the_choices_keep_their_last_value_and_the_envelope_is_ours() -> None:
    body = fold(
        [
            {"choices": [], "id": "theirs", "system_fingerprint": "a", "timings": {"n": 1}, "usage": {"x": 1}},
            {"system_fingerprint": None, "timings": {"m": 2}},
        ]
    )
    assert (body["id"], body["system_fingerprint"], body["timings"]) == ("r-1", "a", {"m": 2})
    assert body["usage"] == {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}
    assert body["choices"][0]["message"]["content"] == ""


def test_text_completions() -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "text_offset": [0]}
    pieces = [{"choices": [{"index": 0, "text": text, "logprobs": logprobs}]} for text in "ab"]
    choice = fold(["x", *pieces, {"choices": [{"index": 1, "text": "y", "finish_reason": "length"}]}], TEXT)["choices"]
    doubled = {"tokens": ["a", "a"], "token_logprobs": [-1.0, -1.0], "text_offset": [0, 0]}
    assert choice == [
        {"index": 0, "text": "xab", "logprobs": doubled, "finish_reason": "stop"},
        {"index": 1, "text": "y", "logprobs": None, "finish_reason": "length"},
    ]


@pytest.mark.parametrize("event", [{}, {"choices": None}, {"choices": [5, None]}, {"choices": [{"delta": 5}]}])
def test_a_malformed_event_does_no_harm(event: dict[str, Any]) -> None:
    assert fold(["a", event, "b"])["choices"][0]["message"]["content"] in ("ab", "b")


@given(
    st.dictionaries(st.sampled_from(["content", "reasoning", "refusal"]), st.text(min_size=1), min_size=1),
    st.lists(st.integers(1, 5), min_size=1),
)
def test_an_answer_cut_into_pieces_folds_to_itself(fields: dict[str, str], sizes: list[int]) -> None:
    events: list[Any] = []
    for name, text in fields.items():
        position, turn = 0, 0
        while position < len(text):
            size = sizes[turn % len(sizes)]
            events.append(delta(**{name: text[position : position + size]}))
            position, turn = position + size, turn + 1
    assert {name: value for name, value in message(*events).items() if name in fields} == fields


@pytest.mark.parametrize("event", ["ab ", delta(reasoning="ab ")], ids=["texts", "objects"])
def test_a_long_answer_of_short_pieces_takes_little_more_memory_than_its_characters(event: Any) -> None:
    count, batch = 100_000, orjson.dumps([event] * 100)
    folded = CompletionFold(CHAT)
    tracemalloc.start()
    try:
        for _ in range(count // 100):
            folded.add(orjson.loads(batch))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 3 * len("ab ") * count
    body = folded.body("r-1", "m", 1, End("completed", "", "", "stop", count))
    answer = body["choices"][0]["message"]
    assert (answer["content"] or answer["reasoning"]) == "ab " * count


def test_many_pieces_of_both_kinds_keep_their_order() -> None:
    events: list[Any] = [f"{number} " if number % 3000 else delta(content=f"{number} ") for number in range(10_000)]
    folded = CompletionFold(CHAT)
    for start in range(0, len(events), 7):
        folded.add(events[start : start + 7])
    body = folded.body("r-1", "m", 1, End("completed", "", "", "stop", len(events)))
    assert body["choices"][0]["message"]["content"] == "".join(f"{number} " for number in range(10_000))
