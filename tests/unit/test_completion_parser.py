"""The parser of an upstream's answers, with what real servers sent (`tests/recorded`) and with odd framing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import STREAM_ENDED, EngineError, Unavailable
from lifecycle.execution.context import EngineContext
from lifecycle.types import Event
from worker.engines.answer_parser import NOT_JSON
from worker.engines.completion_parser import NO_CHOICES, CompletionParser
from worker.engines.upstream_errors import KEY_REFUSED

RECORDED = Path(__file__).parents[1] / "recorded"
ENVELOPE = ("id", "object", "created", "model", "usage")


def read(
    *pieces: bytes, choices: int = 1, context: EngineContext | None = None, end: bool = True
) -> tuple[list[Event], CompletionParser]:
    """Return the events of a body, and the parser behind it."""
    parser = CompletionParser(context or EngineContext("r"), choices)
    events = [event for piece in pieces for event in parser.feed(piece)]
    if end and not parser.ended:
        events += parser.feed(None)
    return events, parser


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **fields: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return event(id="u", object="chat.completion.chunk", created=1, model="m", choices=[choice], **fields)


DONE = b"data: [DONE]\n\n"
HELLO = [chunk({"role": "assistant", "content": ""}), chunk({"content": "hi"}), chunk({"content": " there"}, "stop")]


# what real servers sent


def _payloads(name: str) -> list[dict[str, Any]]:
    lines = (RECORDED / name).read_text().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize(
    ("name", "choices", "finish_reason", "completion_tokens"),
    [
        ("vllm_reasoning.sse", 1, "length", 30),
        ("vllm_tools_required.sse", 1, "tool_calls", 226),
        ("vllm_n2_logprobs.sse", 2, "length", 10),
        ("vllm_interval10.sse", 1, "length", 60),
        ("llama_n2_logprobs.sse", 2, "length", None),
        ("llama_tools_required.sse", 1, None, None),
    ],
)
def test_a_recorded_stream_passes_through(
    name: str, choices: int, finish_reason: str | None, completion_tokens: int | None
) -> None:
    context = EngineContext("r")
    events, parser = read((RECORDED / name).read_bytes(), choices=choices, context=context)
    expected: list[Event] = []
    repeated: dict[str, str] = {}
    for payload in _payloads(name):
        kept = {key: value for key, value in payload.items() if value is not None and key not in ENVELOPE}
        beside = {key: value for key, value in kept.items() if key != "choices"}
        if not payload["choices"]:
            expected += [{"choices": [], "usage": None, **beside}] if beside != repeated else []
            continue
        [choice] = payload["choices"]
        set_fields = {key for key, value in choice.items() if value not in (None, {})}
        bare = set_fields <= {"index", "finish_reason"} and choice.get("finish_reason") and choices == 1
        if bare and beside == repeated:
            continue
        only_text = set_fields <= {"index", "delta", "finish_reason"} and list(choice.get("delta", {})) == ["content"]
        if only_text and choice["index"] == 0 and beside == repeated:
            expected.append(choice["delta"]["content"])
        else:
            expected.append(kept)
            repeated |= {key: value for key, value in beside.items() if key == "system_fingerprint"}
    assert events == expected
    assert len(events) > 5
    assert parser.finished
    assert finish_reason is None or context.finish_reason == finish_reason
    if completion_tokens is not None:
        assert context.usage is not None
        assert context.usage["completion_tokens"] == completion_tokens


def test_a_recorded_unary_answer_becomes_one_event() -> None:
    context = EngineContext("r")
    [found], _ = read((RECORDED / "vllm_tools_required.json").read_bytes(), context=context)
    assert isinstance(found, dict)
    [choice] = found["choices"]
    assert choice["delta"]["tool_calls"][0]["index"] == 0
    assert choice["delta"]["tool_calls"][0]["function"]["name"] == "clock"
    assert found["system_fingerprint"] == "vllm-0.32.0-195680c2"
    assert "usage" not in found
    assert context.usage is not None
    assert (context.finish_reason, context.usage["completion_tokens"]) == ("tool_calls", 226)


# which event a chunk becomes


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"content": "a"}, "a"),
        ({"content": ""}, ""),
        ({"content": "a", "reasoning": None, "tool_calls": None}, "a"),
        ({"role": "assistant", "content": "a"}, "a"),
        ({"role": "assistant", "content": ""}, None),
        ({"role": "tool", "content": "a"}, None),
        ({"content": None}, None),
        ({}, None),
        ({"content": "a", "reasoning": "b"}, None),
        ({"content": [{"type": "text", "text": "a"}]}, None),
        ({"refusal": "no"}, None),
        ({"audio": {"id": "x"}, "vendor": {"y": None}}, None),
    ],
)
def test_only_text_becomes_a_str(delta: dict[str, Any], expected: str | None) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    events, _ = read(chunk(delta), DONE)
    assert events == [{"choices": [choice]} if expected is None else expected]


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"index": 1, "delta": {"content": "a"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": []}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [1]}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}], "service_tier": "default"},
        {"choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 128009}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{}]}, "finish_reason": "tool_calls"}]},
        {"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]},
        {"choices": [], "prompt_filter_results": [1]},
    ],
)
def test_everything_else_stays_a_dict(fields: dict[str, Any]) -> None:
    events, _ = read(event(id="u", object="o", created=1, model="m", vendor=None, **fields), DONE)
    assert events == [fields]


def test_the_usage_leaves_the_stream() -> None:
    context = EngineContext("r")
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    parts = [chunk({"content": "a"}, usage={"prompt_tokens": 7}), chunk({}, "stop"), event(choices=[], usage=usage)]
    assert read(*parts, DONE, context=context)[0] == ["a"]
    assert (context.usage, context.input_tokens, context.finish_reason) == (usage, 7, "stop")


def test_other_fields_of_a_usage_chunk_stay() -> None:
    events, _ = read(*HELLO, event(choices=[], usage={}, system_fingerprint="f"), DONE)
    assert events[1:] == ["hi", " there", {"choices": [], "usage": None, "system_fingerprint": "f"}]


def test_several_choices_keep_their_finish_reasons() -> None:
    parts = [chunk({"content": "a"}), chunk({}, "stop", 1), chunk({}, "length")]
    context = EngineContext("r")
    events, parser = read(*parts[:2], choices=2, context=context, end=False)
    assert (len(events), parser.finished) == (2, False)
    events += parser.feed(parts[2])
    assert parser.finished
    assert events == [
        "a",
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
    ]
    assert context.finish_reason == "length"


# framing


def hello_in(framing: str) -> bytes:
    body = b"".join(HELLO) + DONE
    return {
        "mark": b"\xef\xbb\xbf" + body,
        "cr": body.replace(b"\n", b"\r"),
        "crlf": body.replace(b"\n", b"\r\n"),
        "no space": body.replace(b"data: ", b"data:"),
        "done": body.replace(b"[DONE]", b"[DONE]  "),
        "comments": b": ping\n\n" + body.replace(b"data: [", b": ping\n\ndata:\n\ndata: ["),
    }[framing]


@given(
    st.sampled_from(["mark", "cr", "crlf", "no space", "done", "comments"]), st.lists(st.integers(0, 500), max_size=9)
)
def test_the_framing_does_not_matter(framing: str, cuts: list[int]) -> None:
    wire = hello_in(framing)
    edges = [0, *sorted(cuts), len(wire)]
    pieces = [wire[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*pieces, end=False)[0][1:] == ["hi", " there"]


@pytest.mark.parametrize(
    "late",
    [
        b"data: {nonsense\n\n",
        b"data: [1]\n\n",
        b"event: error\ndata: late\n\n",
        event(error={"message": "late"}),
        b"\x00\xff",
        b"",
    ],
)
def test_nothing_fails_a_complete_answer(late: bytes) -> None:
    events, parser = read(*HELLO, late)
    assert (events[1:], parser.finished) == (["hi", " there"], True)


# a whole answer, and errors


ANSWER = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "all"}}]}


@given(st.sampled_from([b"", b"\xef\xbb\xbf", b" \n"]), st.lists(st.integers(0, 100), max_size=5))
def test_a_json_answer_is_used(before: bytes, cuts: list[int]) -> None:
    wire = before + json.dumps({**ANSWER, "usage": {"prompt_tokens": 3}}).encode()
    edges = [0, *sorted(cuts), len(wire)]
    context = EngineContext("r")
    pieces = [wire[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*pieces, context=context)[0] == ["all"]
    assert context.input_tokens == 3


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"model crashed"}}\n', "model crashed"),
        (b'{"choices":[]}', NO_CHOICES),
        (b'{"detail":"no"}', "no"),
        (b"[1]", NO_CHOICES),
        (b"data: {nonsense\n\n", NOT_JSON),
    ],
)
def test_what_is_no_answer_fails(body: bytes, message: str) -> None:
    with pytest.raises(EngineError) as raised:
        read(body)
    assert (raised.value.message, raised.value.detail.status) == (message, 500)


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        ({"type": "T", "code": 500, "param": None}, (500, "T", 500, None)),
        ({"type": "T", "code": "x_y", "param": "p"}, (500, "T", "x_y", "p")),
        ({"code": "429"}, (429, None, "429", None)),
        ({"code": 400}, (400, None, 400, None)),
        ({"code": 403}, (403, None, None, None)),
    ],
)
def test_an_error_in_the_stream_keeps_its_parts(error: dict[str, Any], detail: tuple[Any, ...]) -> None:
    with pytest.raises(EngineError) as raised:
        read(HELLO[0], event(error={"message": "died", **error}))
    assert raised.value.detail[:4] == detail
    assert raised.value.message == (KEY_REFUSED if error["code"] == 403 else "died")


def test_503_is_unavailable_before_the_first_event_only() -> None:
    busy = event(error={"message": "busy", "code": 503})
    with pytest.raises(Unavailable, match="busy"):
        read(busy)
    with pytest.raises(EngineError) as raised:
        read(HELLO[0], busy)
    assert (raised.value.detail.status, raised.value.error_type) == (503, "unavailable")


def test_an_early_end_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=STREAM_ENDED):
        read(b"")
    with pytest.raises(EngineError, match=STREAM_ENDED) as raised:
        read(HELLO[0], b'data: {"choi')
    assert raised.value.error_type == "unavailable"
