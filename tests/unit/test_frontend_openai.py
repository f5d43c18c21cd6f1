"""A call is valid, wrong (400), or asks for something that only some engines take."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.endpoints.body_rules import MAX_DEPTH
from frontend.endpoints.completions.validation import parse
from frontend.endpoints.endpoint import Call
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import Endpoint, ErrorType, RequestType

CHAT, TEXT = Endpoint.CHAT_COMPLETIONS, Endpoint.COMPLETIONS
MINIMAL: dict[Endpoint, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    TEXT: {"model": "m", "prompt": "hi"},
}


def call(endpoint: Endpoint, **changes: Any) -> Call:
    return parse(endpoint, orjson.dumps(MINIMAL[endpoint] | changes))


def refusal(endpoint: Endpoint, raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as raised:
        parse(endpoint, raw)
    return raised.value


def refused(endpoint: Endpoint, **changes: Any) -> ApiError:
    return refusal(endpoint, orjson.dumps(MINIMAL[endpoint] | changes))


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
def test_the_least_and_what_becomes_of_it(endpoint: Endpoint) -> None:
    assert call(endpoint) == Call(endpoint, "m", RequestType.UNARY, MINIMAL[endpoint], False)


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("changes", "request_type", "include_usage"),
    [
        ({"stream": True}, RequestType.STREAM, False),
        ({"stream": False}, RequestType.UNARY, False),
        ({"stream": None, "stream_options": None}, RequestType.UNARY, False),
        ({"stream": True, "stream_options": {}}, RequestType.STREAM, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, RequestType.STREAM, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, RequestType.STREAM, True),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, RequestType.STREAM, False),
    ],
)
def test_streaming(endpoint: Endpoint, changes: dict[str, Any], request_type: RequestType, include_usage: bool) -> None:
    parsed = call(endpoint, **changes)
    assert (parsed.request_type, parsed.include_usage) == (request_type, include_usage)


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
def test_the_body_reaches_the_engine_as_it_came(endpoint: Endpoint) -> None:
    changes = {
        "top_k": 40,
        "guided_regex": "a*",
        "ignore_eos": True,
        "seed": None,
        "extra": {"deep": [1, {}]},
    }
    assert call(endpoint, **changes).body == MINIMAL[endpoint] | changes


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b'{"model":"m",}',
        b'{"model":"m"',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b'{"temperature":NaN}',
        b'{"temperature":Infinity}',
        b'{"temperature":1e999}',
        b"[]",
        b"null",
        b'"text"',
        b"1",
    ],
)
def test_not_a_json_object(endpoint: Endpoint, raw: bytes) -> None:
    error = refusal(endpoint, raw)
    assert (error.status, error.param) == (400, None)
    assert error.message.startswith("The body ")
    orjson.loads(error.body())


@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 1020, 5_000, 200_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_not_a_crash(depth: int, left: bytes, right: bytes) -> None:
    raw = b'{"model":"m","prompt":"p","x":' + left * depth + b"1" + right * depth + b"}"
    assert refusal(TEXT, raw).status == 400


def test_reasonable_nesting_is_fine() -> None:
    depth = MAX_DEPTH - 1
    raw = b'{"model":"m","prompt":"p","x":' + b"[" * depth + b"]" * depth + b"}"
    assert parse(TEXT, raw).model == "m"


@pytest.mark.parametrize("endpoint", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 2.5),
        ("temperature", 0.7),
        ("top_p", 1),
        ("top_p", 0.0),
        ("max_tokens", 1),
        ("max_tokens", -1),
        ("max_tokens", 5.0),
        ("seed", 2**63),
        ("presence_penalty", -2),
        ("frequency_penalty", 2.0),
        ("seed", -5),
        ("seed", 2**63 - 1),
        ("stop", "x"),
        ("stop", []),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("n", 0),
        ("n", 1),
        ("logit_bias", {}),
        ("logit_bias", {"50256": -100}),
        ("user", "me"),
        ("logprobs", False),
        ("model", "org/Model-7B:free"),
        ("model", "é" * 256),
    ],
)
def test_good_values_of_both(endpoint: Endpoint, name: str, value: Any) -> None:
    assert call(endpoint, **{name: value}).body[name] == value
    if name != "model":
        assert call(endpoint, **{name: None}).body[name] is None


BAD_EVERYWHERE: list[tuple[str, list[Any]]] = [
    ("model", [None, "", "  ", 5, ["m"], "x" * 257, "a\nb", "a\x00", "a\x7f", "a\x9f"]),
    ("stream", [1, 0, "true", {}]),
    ("temperature", ["1", True, [], {}]),
    ("top_p", [False]),
    ("max_tokens", [True, "16"]),
    ("presence_penalty", ["0"]),
    ("frequency_penalty", [{}]),
    ("seed", [True, "7"]),
    ("stop", [5, {}]),
    ("n", [True, "1"]),
    ("logit_bias", ["x", 1]),
    ("user", [5, {}, True]),
    ("stream_options", [True, [], {}, {"include_usage": True}]),  # `stream` is not true
]
BAD_CHAT: list[tuple[str, list[Any]]] = [
    ("messages", [None, [], {}, "hi"]),
    ("max_completion_tokens", [True]),
    ("logprobs", [1, "true"]),
    ("top_logprobs", [True, "2"]),
    ("tools", [{}, "x"]),
    ("functions", [{}, 1]),
    ("tool_choice", [1, True, []]),
    ("modalities", ["text", [1]]),
    ("audio", [True, "wav"]),
    ("response_format", ["json", []]),
    ("metadata", [[]]),
    ("store", [1]),
    ("parallel_tool_calls", ["no"]),
    ("reasoning_effort", [3]),
]
BAD_TEXT: list[tuple[str, list[Any]]] = [
    ("prompt", [None, [], {}, 5, True, [True], ["a", 1], [[]], [["a"]], [None]]),
    ("logprobs", ["1", {}]),
    ("best_of", [True, "2"]),
    ("echo", [1, "yes"]),
    ("suffix", [1, []]),
]


@pytest.mark.parametrize(
    ("endpoint", "name", "value"),
    [
        (endpoint, name, value)
        for endpoint, table in ((CHAT, BAD_EVERYWHERE + BAD_CHAT), (TEXT, BAD_EVERYWHERE + BAD_TEXT))
        for name, values in table
        for value in values
    ],
)
def test_bad_values_are_400_and_named(endpoint: Endpoint, name: str, value: Any) -> None:
    error = refused(endpoint, **{name: value})
    assert (error.error_type, error.status, error.param) == (ErrorType.VALIDATION, 400, name)
    assert f"'{name}'" in error.message


@pytest.mark.parametrize("value", [1, "yes", {}])
def test_bad_stream_options(value: Any) -> None:
    for option in ("include_usage", "include_obfuscation"):
        error = refused(CHAT, stream=True, stream_options={option: value})
        assert (error.status, error.param) == (400, f"stream_options.{option}")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "s"},
        {"role": "ipython", "content": "s"},
        {"role": "developer", "content": "s"},
        {"role": "user", "content": ""},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
        {"role": "function", "content": None, "name": "f"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}, {"type": "file"}]},
    ],
)
def test_good_messages(message: dict[str, Any]) -> None:
    assert call(CHAT, messages=[message]).body["messages"] == [message]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "messages[1]"),
        (None, "messages[1]"),
        ({}, "messages[1].role"),
        ({"role": "", "content": "x"}, "messages[1].role"),
        ({"role": ["user"], "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "tool", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": {}}, "messages[1].content"),
        ({"role": "user", "content": []}, "messages[1].content"),
        ({"role": "assistant", "content": []}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "messages[1].content[0].text"),
    ],
)
def test_bad_messages_are_named_by_their_place(message: Any, param: str) -> None:
    error = refused(CHAT, messages=[{"role": "user", "content": "fine"}, message])
    assert (error.status, error.param) == (400, param)
    assert f"'{param}'" in error.message


GATED_CHAT: list[tuple[str, Any]] = [
    ("n", 2),
    ("logprobs", True),
    ("top_logprobs", 3),
    ("tools", [{"type": "function"}]),
    ("functions", [{"name": "f"}]),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function"}),
    ("function_call", {"name": "f"}),
    ("modalities", ["text", "audio"]),
    ("audio", {"voice": "alloy"}),
    ("prediction", {"type": "content"}),
    ("web_search_options", {}),
    ("response_format", {"type": "json_object"}),
]
GATED_TEXT: list[tuple[str, Any]] = [
    ("n", 2),
    ("best_of", 2),
    ("logprobs", 0),
    ("logprobs", 5),
    ("echo", True),
    ("suffix", "the end"),
    ("prompt", ["a", "b"]),
    ("prompt", [1, 2, 3]),
    ("prompt", [[1, 2], [3]]),
    ("prompt", [[1, 2]]),
    ("prompt", [5]),
]


@pytest.mark.parametrize(
    ("endpoint", "name", "value"),
    [(CHAT, *row) for row in GATED_CHAT] + [(TEXT, *row) for row in GATED_TEXT],
)
def test_what_not_every_engine_takes_is_named(endpoint: Endpoint, name: str, value: Any) -> None:
    assert call(endpoint, **{name: value}).gated == (name,)


@pytest.mark.parametrize(
    ("endpoint", "changes"),
    [
        (CHAT, {"logprobs": False, "top_logprobs": 0, "tools": [], "functions": []}),
        (CHAT, {"response_format": {"type": "text"}, "n": 1}),
        (CHAT, {"tool_choice": "none", "function_call": "auto", "modalities": ["text"]}),
        (CHAT, {"audio": None, "prediction": None, "web_search_options": None, "tools": None}),
        (TEXT, {"best_of": 1, "echo": False, "suffix": "", "logprobs": None}),
        (TEXT, {"prompt": ["only one"]}),
        (TEXT, {"prompt": ""}),
    ],
)
def test_asking_for_nothing_special_is_fine(endpoint: Endpoint, changes: dict[str, Any]) -> None:
    assert call(endpoint, **changes).gated == ()


def test_a_message_never_repeats_a_long_value() -> None:
    assert refused(CHAT, temperature="s" * 5000).message.endswith("not a string of 5000 characters")
    assert refused(TEXT, max_tokens="0").message == "'max_tokens' must be a number, not a string of 1 characters"


NAMES = sorted({name for name, _ in BAD_EVERYWHERE + BAD_CHAT + BAD_TEXT})
WORDS = st.sampled_from(["", "a", "audio", "auto", "text", "type", "user", "é", "\x00"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | WORDS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    endpoint=st.sampled_from([CHAT, TEXT]),
    changes=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
    content=JSON,
)
def test_any_json_is_a_call_or_a_clear_refusal(endpoint: Endpoint, changes: dict[str, Any], content: Any) -> None:
    body = MINIMAL[endpoint] | {"messages": [{"role": "user", "content": content}]} | changes
    raw = orjson.dumps(body)
    try:
        assert parse(endpoint, raw).body == orjson.loads(raw)
    except ApiError as refusal:
        outcome = refusal
    else:
        return
    assert outcome.status == 400
    assert outcome.param
    orjson.loads(outcome.body())


@settings(deadline=None)
@given(raw=st.binary(max_size=64))
def test_any_bytes_are_refused(raw: bytes) -> None:
    assert refusal(CHAT, raw).status == 400
