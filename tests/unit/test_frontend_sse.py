"""The events byte for byte, and what the OpenAI SDK makes of them."""

import re
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from frontend.endpoints.completions.choices import ChoiceProgress
from frontend.endpoints.completions.fold import CompletionFold
from frontend.endpoints.completions.sse import ChunkEncoder
from lifecycle.encoding import encodable
from lifecycle.errors import ERROR_RESPONSES, STREAM_ENDED
from lifecycle.fastapi.errors import error_frame
from lifecycle.fastapi.json_events import DONE, KEEPALIVE
from lifecycle.fastapi.run_response import EventStreamEncoder
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, ErrorDetail, ErrorType, Event

CHAT, TEXT = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS


def encoder(endpoint: Endpoint, include_usage: bool = False) -> ChunkEncoder:
    return ChunkEncoder(endpoint, "r-1", "m", 1700000000, include_usage)


def events(wire: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    """Return (id, data) of each event, read as strictly as the format allows.

    The numbers follow each other, but for those that a comment says to have no event.
    """
    *blocks, rest = wire.split(b"\n\n")
    assert all(line.startswith(b": ") for line in rest.splitlines())
    found: list[tuple[str | None, dict[str, Any]]] = []
    numbers = []
    for block in blocks:
        numbers += [int(number) for number in re.findall(rb"^(?:id:|: no event) \d+-(\d+)$", block, re.M)]
        *ids, data = (line for line in block.split(b"\n") if not line.startswith(b": no event "))
        assert data.startswith(b"data: ")
        assert len(ids) <= 1
        found.append((ids[0].decode().removeprefix("id: ") if ids else None, orjson.loads(data[6:])))
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    return found


def text_of(chunk: dict[str, Any]) -> str:
    choice = chunk["choices"][0]
    return str(choice["text"] if "text" in choice else choice["delta"]["content"])


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
CHAT_HEAD = b'data: {"id":"r-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['
TEXT_HEAD = b'data: {"id":"r-1","object":"text_completion","created":1700000000,"model":"m","choices":['


def test_chat_tokens_byte_for_byte() -> None:
    assert encoder(CHAT).tokens(1, 1, ["Hi", ' "\n']) == (
        b"id: 1-1\n" + CHAT_HEAD + b'{"index":0,"delta":{"role":"assistant","content":"Hi"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
        b"id: 1-2\n" + CHAT_HEAD + b'{"index":0,"delta":{"content":" \\"\\n"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
    )


def test_completion_tokens_byte_for_byte() -> None:
    assert encoder(TEXT, include_usage=True).tokens(2, 9, ["a", "b"]) == (
        b"id: 2-9\n" + TEXT_HEAD + b'{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null}\n\n'
        b"id: 2-10\n" + TEXT_HEAD + b'{"index":0,"text":"b","logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    )


def test_finish_byte_for_byte() -> None:
    begun = encoder(CHAT)
    begun.tokens(1, 1, ["a"])
    assert begun.finish("stop") == (CHAT_HEAD + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n')
    assert encoder(TEXT, include_usage=True).finish("length") == (
        TEXT_HEAD + b'{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}\n\n'
    )


def test_an_empty_answer_has_the_role_too() -> None:
    assert encoder(CHAT, include_usage=True).finish("stop") == (
        CHAT_HEAD + b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":null}\n\n'
    )


@pytest.mark.parametrize(("endpoint", "head"), [(CHAT, CHAT_HEAD), (TEXT, TEXT_HEAD)])
def test_usage_byte_for_byte(endpoint: Endpoint, head: bytes) -> None:
    assert encoder(endpoint, include_usage=True).usage(USAGE) == (
        head + b'],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    )


def test_fixed_lines() -> None:
    assert DONE == b"data: [DONE]\n\n"
    assert EventStreamEncoder.keepalive == KEEPALIVE == b": keepalive\n"


def test_a_comment_is_no_event_for_the_openai_sdk() -> None:
    """An empty line behind a comment is one: the SDK remembers the id of the event before, and reads no JSON."""
    chunks = encoder(CHAT)
    wire = chunks.tokens(1, 1, ["a"]) + KEEPALIVE
    wire += chunks.tokens(1, 2, [{"choices": [], "usage": None, "timings": {}}]) + KEEPALIVE
    wire += chunks.tokens(1, 3, ["b"]) + KEEPALIVE + chunks.finish("stop") + DONE
    read = list(SSEDecoder().iter_bytes(iter([wire])))
    assert [(event.id, event.data.startswith("{")) for event in read[:2]] == [("1-1", True), ("1-3", True)]
    assert [event.data for event in read if not event.data.startswith("{")] == ["[DONE]"]


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
def test_no_tokens_no_bytes(endpoint: Endpoint) -> None:
    assert encoder(endpoint).tokens(1, 1, []) == b""


def test_only_token_one_carries_the_role_on_every_attempt_and_replay() -> None:
    encode = encoder(CHAT)
    for attempt in (1, 2):
        roles = [
            chunk["choices"][0]["delta"].get("role")
            for first in (1, 3)
            for _, chunk in events(encode.tokens(attempt, first, ["a", "b"]))
        ]
        assert roles == ["assistant", None, None, None]


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
def test_batching_does_not_change_the_bytes(endpoint: Endpoint) -> None:
    encode = encoder(endpoint)
    texts: list[Event] = ["a", "", "c\ud800", "d"]
    one_by_one = b"".join(encode.tokens(1, n, [text]) for n, text in enumerate(texts, 1))
    assert encode.tokens(1, 1, texts) == one_by_one


# The first draw builds hypothesis's table of all characters, which takes a while.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    endpoint=st.sampled_from([CHAT, TEXT]),
    include_usage=st.booleans(),
    attempt=st.integers(1, 100),
    first=st.integers(1, 10**12),
    texts=st.lists(st.text(st.characters(exclude_categories=()))),  # lone surrogates too
    model=st.text(),
)
def test_any_text_round_trips(
    endpoint: Endpoint, include_usage: bool, attempt: int, first: int, texts: list[Event], model: str
) -> None:
    wire = ChunkEncoder(endpoint, "r-1", model, 1, include_usage).tokens(attempt, first, texts)
    found = events(wire)
    assert [text_of(chunk) for _, chunk in found] == [encodable(str(text)) for text in texts]
    assert [name for name, _ in found] == [f"{attempt}-{first + n}" for n in range(len(texts))]
    for _, chunk in found:
        assert chunk["model"] == model
        assert ("usage" in chunk) == include_usage
    # Some clients split lines at any of these; nothing but the format's own newlines may be there.
    assert b"\r" not in wire
    assert wire.count(b"\n") == 3 * len(texts)


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_sdk_accepts_every_chat_chunk(include_usage: bool) -> None:
    encode = encoder(CHAT, include_usage)
    wire = encode.tokens(1, 1, ["a", "b"]) + encode.finish("stop") + encode.usage(USAGE)
    *chunks, usage = [ChatCompletionChunk.model_validate(data, strict=True) for _, data in events(wire)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ab"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert usage.usage is not None
    assert usage.usage.total_tokens == 7


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_sdk_accepts_every_completion_chunk(include_usage: bool) -> None:
    encode = encoder(TEXT, include_usage)
    for _, data in events(encode.finish("length") + encode.usage(USAGE)):
        Completion.model_validate(data, strict=True)
    # OpenAI's own chunks carry a null `finish_reason` until the last; the SDK's type does not say so.
    ((_, token),) = events(encode.tokens(1, 1, ["a"]))
    token["choices"][0]["finish_reason"] = "stop"
    assert Completion.model_validate(token, strict=True).choices[0].text == "a"


def fold(endpoint: Endpoint, texts: list[Event], created: int, input_tokens: int | None) -> dict[str, Any]:
    folded = CompletionFold(endpoint)
    folded.add(texts)
    return folded.body("r-1", "m", created, End("completed", "", "", "stop", len(texts), input_tokens))


@pytest.mark.parametrize(("endpoint", "kind"), [(CHAT, ChatCompletion), (TEXT, Completion)])
@pytest.mark.parametrize("input_tokens", [None, 5])
def test_the_sdk_accepts_the_unary_body(
    endpoint: Endpoint, kind: type[ChatCompletion] | type[Completion], input_tokens: int | None
) -> None:
    body = fold(endpoint, ["a\ud800", "b"], 1, input_tokens)
    parsed = kind.model_validate(orjson.loads(orjson.dumps(body)), strict=True)
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == (input_tokens or 0) + 2
    assert parsed.choices[0].finish_reason == "stop"


def test_the_unary_bodies() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    shared = {"id": "r-1", "created": 7, "model": "m", "usage": usage}
    message = {"role": "assistant", "content": "hi", "refusal": None}
    end = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    assert fold(CHAT, ["h", "i"], 7, 1) == shared | {
        "object": "chat.completion",
        "choices": [end | {"message": message}],
    }
    assert fold(TEXT, ["h", "i"], 7, 1) == shared | {
        "object": "text_completion",
        "choices": [end | {"text": "hi"}],
    }


def test_error_frame_byte_for_byte() -> None:
    assert error_frame(ErrorType.WORKER_LOST, STREAM_ENDED, "r-1") == (
        b'data: {"error":{"message":"Disconnected: Stream ended before generation completed",'
        b'"type":"internal_server_error","code":500,"param":null,"error_type":"worker_lost","request_id":"r-1"}}\n\n'
    )


@pytest.mark.parametrize("error_type", list(ERROR_RESPONSES))
def test_every_error_type_has_a_frame(error_type: ErrorType) -> None:
    ((name, data),) = events(error_frame(error_type, "line\nline \ud800", "r-1"))
    assert name is None
    shape = ERROR_RESPONSES[error_type]
    assert data == {
        "error": {
            "message": "line\nline \ufffd",
            "type": shape.type,
            "code": shape.status,
            "param": None,
            "error_type": error_type.value,
            "request_id": "r-1",
        }
    }


def test_the_frame_of_an_upstreams_error_keeps_its_parts() -> None:
    detail = ErrorDetail(400, "bad", "context_length_exceeded", "messages", 3.0)
    ((_, data),) = events(error_frame(ErrorType.VALIDATION, "too long", "r-1", detail))
    assert data["error"] == {
        "message": "too long",
        "type": "bad",
        "code": "context_length_exceeded",
        "param": "messages",
        "error_type": "validation",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(("status", "code"), [(400, 400), (429, 429), (503, 503), (502, 502), (418, 500), (401, 500)])
def test_the_code_of_a_frame_is_the_status_where_the_upstream_has_no_string(status: int, code: int) -> None:
    ((_, data),) = events(error_frame(ErrorType.INTERNAL, "why", "r-1", ErrorDetail(status, code=7)))
    assert data["error"]["code"] == code


def chunk(index: int = 0, finish_reason: str | None = None, /, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]}


def test_an_object_is_one_event_with_its_own_fields_in_our_envelope() -> None:
    event = chunk(tool_calls=[{"index": 0, "unheard": []}]) | {"token_ids": [], "id": "theirs", "model": "theirs"}
    assert encoder(CHAT).tokens(1, 7, ["a", event])[len(encoder(CHAT).tokens(1, 7, ["a"])) :] == (
        b"id: 1-8\n" + CHAT_HEAD + b'{"index":0,"delta":{"tool_calls":[{"index":0,"unheard":[]}]},'
        b'"logprobs":null,"finish_reason":null}],"token_ids":[]}\n\n'
    )


def test_with_usage_every_chunk_has_the_field() -> None:
    ((_, plain), (_, own)) = events(encoder(TEXT, include_usage=True).tokens(1, 1, [{}, {"usage": {"x": 1}}]))
    assert (plain["choices"], plain["usage"], own["usage"]) == ([], None, {"x": 1})


def test_the_first_event_of_each_choice_has_the_role_unless_the_engine_sent_it() -> None:
    answer: list[Event] = [
        chunk(1, content="a"),
        chunk(0, role="tool", content=None),
        "text",
        chunk(1, content="b"),
        chunk(2, role=None),
        {"choices": [{"index": 3}]},
        chunk(3, content="c"),
    ]
    found = [data["choices"][0]["delta"].get("role") for _, data in events(encoder(CHAT).tokens(1, 1, answer))]
    assert found == ["assistant", "tool", None, None, "assistant", "assistant", None]
    assert answer[0] == chunk(1, content="a"), "the event belongs to other readers too"


def test_a_finish_reason_that_the_engine_sent_is_not_sent_again() -> None:
    for choice, sent in ((0, True), (1, False)):
        encode = encoder(CHAT)
        sent_by = encode.tokens(1, 1, ["a", chunk(choice, "tool_calls")]) + encode.finish("stop")
        assert (b'"finish_reason":"stop"' not in sent_by) is sent
        assert b'"finish_reason":"tool_calls"' in sent_by


ANSWER: list[Event] = [
    chunk(1, content="a"),
    "b",
    chunk(0, tool_calls=[]),
    chunk(2),
    "c",
    chunk(1, "stop"),
    chunk(0, "length"),
    {"choices": [], "timings": {}},
]


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
@pytest.mark.parametrize("after", range(len(ANSWER) + 1))
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_resumed_stream_has_the_same_bytes(endpoint: Endpoint, after: int, batch: int) -> None:
    """However the events are cut into batches, and if one is encoded again because the socket did not take it."""
    whole = encoder(endpoint)
    one_by_one = [whole.tokens(1, number, [event]) for number, event in enumerate(ANSWER, 1)]
    progress = ChoiceProgress()
    progress.note(1, ANSWER[:after])
    resumed = ChunkEncoder(endpoint, "r-1", "m", 1700000000, False, progress)
    wire = b""
    for start in range(after, len(ANSWER), batch):
        piece = ANSWER[start : start + batch]
        resumed.tokens(1, start + 1, piece)
        wire += resumed.tokens(1, start + 1, piece)
    assert wire == b"".join(one_by_one[after:])
    assert resumed.finish("stop") == whole.finish("stop") == b""
