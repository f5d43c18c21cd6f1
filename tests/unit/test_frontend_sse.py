"""The events byte for byte, and what the OpenAI SDK makes of them."""

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from frontend.openai_api.sse import DONE, KEEPALIVE, ChunkEncoder, error_frame, fold
from lifecycle.errors import ERROR_RESPONSES, STREAM_ENDED
from lifecycle.fastapi.errors import encodable
from lifecycle.types import Endpoint, ErrorType

CHAT, TEXT = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS


def encoder(endpoint: Endpoint, include_usage: bool = False) -> ChunkEncoder:
    return ChunkEncoder(endpoint, "r-1", "m", 1700000000, include_usage)


def events(wire: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    """(id, data) of each event, read as strictly as the format allows."""
    *blocks, rest = wire.split(b"\n\n")
    assert rest == b""
    found = []
    for block in blocks:
        *ids, data = block.split(b"\n")
        assert data.startswith(b"data: ")
        assert len(ids) <= 1
        found.append((ids[0].decode().removeprefix("id: ") if ids else None, orjson.loads(data[6:])))
    return found


def text_of(chunk: dict[str, Any]) -> str:
    choice = chunk["choices"][0]
    return str(choice["text"] if "text" in choice else choice["delta"]["content"])


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
    assert encoder(CHAT).finish("stop") == (
        CHAT_HEAD + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
    )
    assert encoder(TEXT, include_usage=True).finish("length") == (
        TEXT_HEAD + b'{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}\n\n'
    )


@pytest.mark.parametrize(("endpoint", "head"), [(CHAT, CHAT_HEAD), (TEXT, TEXT_HEAD)])
def test_usage_byte_for_byte(endpoint: Endpoint, head: bytes) -> None:
    assert encoder(endpoint, include_usage=True).usage(3, 4) == (
        head + b'],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    )
    assert events(encoder(endpoint).usage(None, 4))[0][1]["usage"]["total_tokens"] == 4


def test_fixed_lines() -> None:
    assert DONE == b"data: [DONE]\n\n"
    assert KEEPALIVE == b": keepalive\n\n"


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
    encode, texts = encoder(endpoint), ["a", "", "c\ud800", "d"]
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
    endpoint: Endpoint, include_usage: bool, attempt: int, first: int, texts: list[str], model: str
) -> None:
    wire = ChunkEncoder(endpoint, "r-1", model, 1, include_usage).tokens(attempt, first, texts)
    found = events(wire)
    assert [text_of(chunk) for _, chunk in found] == [encodable(text) for text in texts]
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
    wire = encode.tokens(1, 1, ["a", "b"]) + encode.finish("stop") + encode.usage(1, 2)
    *chunks, usage = [ChatCompletionChunk.model_validate(data, strict=True) for _, data in events(wire)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ab"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert usage.usage is not None
    assert usage.usage.total_tokens == 3


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_sdk_accepts_every_completion_chunk(include_usage: bool) -> None:
    encode = encoder(TEXT, include_usage)
    for _, data in events(encode.finish("length") + encode.usage(1, 2)):
        Completion.model_validate(data, strict=True)
    # OpenAI's own chunks carry a null `finish_reason` until the last; the SDK's type does not say so.
    ((_, token),) = events(encode.tokens(1, 1, ["a"]))
    token["choices"][0]["finish_reason"] = "stop"
    assert Completion.model_validate(token, strict=True).choices[0].text == "a"


@pytest.mark.parametrize(("endpoint", "kind"), [(CHAT, ChatCompletion), (TEXT, Completion)])
@pytest.mark.parametrize("input_tokens", [None, 5])
def test_the_sdk_accepts_the_unary_body(
    endpoint: Endpoint, kind: type[ChatCompletion] | type[Completion], input_tokens: int | None
) -> None:
    body = fold(endpoint, "r-1", "m", 1, "a\ud800b", "stop", input_tokens, 2)
    parsed = kind.model_validate(orjson.loads(orjson.dumps(body)), strict=True)
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == (input_tokens or 0) + 2
    assert parsed.choices[0].finish_reason == "stop"


def test_the_unary_bodies() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    shared = {"id": "r-1", "created": 7, "model": "m", "usage": usage}
    message = {"role": "assistant", "content": "hi", "refusal": None}
    end = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    assert fold(CHAT, "r-1", "m", 7, "hi", "stop", 1, 2) == shared | {
        "object": "chat.completion",
        "choices": [end | {"message": message}],
    }
    assert fold(TEXT, "r-1", "m", 7, "hi", "stop", 1, 2) == shared | {
        "object": "text_completion",
        "choices": [end | {"text": "hi"}],
    }


def test_error_frame_byte_for_byte() -> None:
    assert error_frame(ErrorType.WORKER_LOST, STREAM_ENDED, "r-1") == (
        b'data: {"error":{"message":"Disconnected: Stream ended before generation completed",'
        b'"type":"internal_server_error","code":500,"error_type":"worker_lost","request_id":"r-1"}}\n\n'
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
            "error_type": error_type.value,
            "request_id": "r-1",
        }
    }
