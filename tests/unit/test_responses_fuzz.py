"""Translate calls and chunks that are valid JSON and little else: nothing raises, and what comes out is well-formed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.formats.origin import Origin
from lifecycle.translation.responses import ResponsesTranslation
from lifecycle.translation.responses_request import to_chat_body
from lifecycle.translation.responses_support import untranslatable
from tests.responses import accumulate

NAMES = ("type", "role", "content", "text", "name", "output", "id", "image_url", "file_data", "arguments", "detail")
KINDS = ("message", "function_call", "function_call_output", "reasoning", "item_reference", "function", "allowed_tools")
PARTS = ("input_text", "output_text", "refusal", "input_image", "input_file", "input_audio", "reasoning_text")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(("a", "", "assistant", "user", "developer")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)


def objects(*kinds: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects of these types with the fields, each of which may be missing or anything else."""
    known = {"type": st.sampled_from(kinds) | VALUES} | {name: value | VALUES for name, value in fields.items()}
    return st.fixed_dictionaries({}, optional=known)


CONTENT = st.lists(objects(*PARTS, text=VALUES, image_url=VALUES, file_data=VALUES) | VALUES, max_size=3)
ITEM = objects(*KINDS, role=st.sampled_from(("assistant", "user", "developer")), content=CONTENT, output=CONTENT)
TOOLS = st.lists(objects(*KINDS, name=VALUES) | VALUES, max_size=2)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "input": st.lists(ITEM | VALUES, max_size=4) | VALUES,
        "instructions": VALUES,
        "tools": TOOLS | VALUES,
        "tool_choice": objects(*KINDS, tools=TOOLS, mode=VALUES) | VALUES,
        "text": st.fixed_dictionaries({"format": objects("json_schema", "json_object", "text")}) | VALUES,
        "include": VALUES,
        "reasoning": st.fixed_dictionaries({"effort": VALUES}) | VALUES,
        "top_logprobs": VALUES,
    },
)
CALLS = st.lists(
    st.fixed_dictionaries({}, optional={"index": st.integers(0, 2) | VALUES, "id": VALUES, "function": VALUES})
    | st.fixed_dictionaries({"index": st.integers(0, 2), "function": st.just({"name": "f", "arguments": "{"})}),
    max_size=2,
)
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": VALUES, "reasoning": VALUES, "refusal": VALUES, "tool_calls": CALLS | VALUES}
)
TOKENS = st.lists(st.fixed_dictionaries({"token": VALUES, "logprob": st.just(-1.0)}), max_size=2)
CHOICES = st.fixed_dictionaries({"delta": DELTAS}, optional={"logprobs": st.fixed_dictionaries({"content": TOKENS})})
CHUNKS = st.lists(st.fixed_dictionaries({"choices": st.lists(CHOICES, max_size=2) | VALUES}) | st.just("a"), max_size=6)


@given(BODIES)
@settings(deadline=None)
def test_any_body_is_read(body: dict[str, Any]) -> None:
    assert all(isinstance(name, str) and " " not in name for name in untranslatable(body))
    messages = to_chat_body(body)["messages"]
    assert all(isinstance(message["content"], str | list | None) for message in messages)


@given(CHUNKS)
@settings(deadline=None)
def test_any_chunks_become_a_valid_answer(chunks: list[Any]) -> None:
    translation = ResponsesTranslation(Origin("resp_1", 1.0, {"model": "m", "input": "hi"}, []))
    events: list[Any] = list(translation.begin())
    for chunk in chunks:
        events += translation.add(chunk)
    accumulate([*events, *translation.end("stop", None)])
