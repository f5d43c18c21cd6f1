"""The worker's parser and the frontend's encoder together: a client gets what the upstream sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from frontend.endpoints.completions.choices import ChoiceProgress
from frontend.endpoints.completions.fold import CompletionFold
from frontend.endpoints.completions.sse import ChunkEncoder
from lifecycle.execution.context import EngineContext
from lifecycle.formats import chunk_events as events
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, Event
from tests.unit.test_frontend_sse import events as read_events
from worker.engines.completion_parser import CompletionParser

RECORDED = Path(__file__).parents[1] / "recorded"
ENVELOPE = ("id", "object", "created", "model")
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
VENDOR = {"timings": {"predicted_ms": 1.5}}


def of_upstream(wire: bytes, choices: int = 1) -> tuple[list[Event], EngineContext]:
    """Return the events that the worker writes for an upstream's answer."""
    context = EngineContext("r")
    parser = CompletionParser(context, choices)
    written: list[Event] = []
    for event in [*parser.feed(wire), *([] if parser.ended else parser.feed(None))]:
        if isinstance(event, dict):
            event = orjson.loads(events.encode(event)[1])
            events.take_usage(event)
            if events.is_empty(event):
                continue
        written.append(event)
    return written, context


def to_client(
    written: list[Event], context: EngineContext, *, include_usage: bool = False, after: int = 0, batch: int = 1
) -> list[dict[str, Any]]:
    """Return the chunks that a client gets that has read the events up to number `after`."""
    progress = ChoiceProgress()
    progress.note(1, written[:after])
    encoder = ChunkEncoder(Endpoint.CHAT_COMPLETIONS, "r", "m", 1, include_usage, progress)
    wire = b""
    for start in range(after, len(written), batch):
        piece = written[start : start + batch]
        encoder.tokens(1, start + 1, piece)  # as when the socket does not take it
        wire += encoder.tokens(1, start + 1, piece)
    wire += encoder.finish(context.finish_reason or "stop")
    if include_usage:
        wire += encoder.usage(context.usage or {})
    return [data for _, data in read_events(wire)]


def without_envelope(chunks: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the envelope, what is null, and the role, which only the first event of a choice has."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shown(item) for name, item in value.items() if item is not None and name != "role"}
        return [shown(item) for item in value] if isinstance(value, list) else value

    return [shown({name: value for name, value in chunk.items() if name not in ENVELOPE}) for chunk in chunks]


def wire_of(chunks: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **fields}


# what real servers sent


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("vllm_reasoning.sse", 1),
        ("vllm_tools_required.sse", 1),
        ("vllm_n2_logprobs.sse", 2),
        ("vllm_interval10.sse", 1),
        ("llama_n2_logprobs.sse", 2),
        ("llama_tools_required.sse", 1),
    ],
)
@pytest.mark.parametrize("batch", [1, 7])
def test_a_client_gets_the_fields_of_every_chunk(name: str, choices: int, include_usage: bool, batch: int) -> None:
    wire = (RECORDED / name).read_bytes()
    direct = [json.loads(line[6:]) for line in wire.decode().split("\n") if line.startswith("data: {")]
    usage_chunk = direct.pop() if not direct[-1]["choices"] else None
    direct = [{key: value for key, value in payload.items() if key != "usage"} for payload in direct]
    if usage_chunk and include_usage:
        direct.append(usage_chunk)
    elif usage_chunk:
        direct[-1] |= {key: value for key, value in usage_chunk.items() if key not in ("choices", "usage")}
    written, context = of_upstream(wire, choices)
    found = to_client(written, context, include_usage=include_usage, batch=batch)
    if include_usage and not usage_chunk:
        found.pop()
    assert without_envelope(found) == without_envelope(direct)


def test_most_chunks_of_a_server_that_names_itself_are_texts() -> None:
    written, _ = of_upstream((RECORDED / "llama_tools_required.sse").read_bytes())
    assert [type(event) for event in written].count(str) > len(written) - 3


# fields beside the usage

LAST_CHUNKS = [
    [chunk({"content": "b"}, "length")],
    [chunk({"content": "b"}), chunk({}, "length")],
    [chunk({"reasoning": "b"}, "length")],
    [chunk({"tool_calls": [{"index": 0, "id": "c"}]}, "length")],
    [chunk({}, "length", service_tier="flex")],
]


@pytest.mark.parametrize("last", LAST_CHUNKS)
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_they_are_in_the_last_chunk_unless_the_client_asked_for_the_usage(
    last: list[dict[str, Any]], batch: int
) -> None:
    usage_chunk = {"choices": [], "usage": USAGE, **VENDOR}
    written, context = of_upstream(wire_of([chunk({"content": "a"}), *last, usage_chunk]))
    *earlier, ending = to_client(written, context, batch=batch)
    assert ending["choices"][0]["finish_reason"] == "length"
    assert ending["timings"] == VENDOR["timings"]
    assert not any("timings" in found or found["choices"][0].get("finish_reason") for found in earlier)

    *earlier, finish, usage = to_client(written, context, include_usage=True, batch=batch)
    assert (usage["choices"], usage["usage"], usage["timings"]) == ([], USAGE, VENDOR["timings"])
    assert finish["choices"][0]["finish_reason"] == "length"
    assert not any("timings" in found for found in (*earlier, finish))


@pytest.mark.parametrize("last", LAST_CHUNKS)
def test_a_client_that_resumes_gets_the_same_chunks(last: list[dict[str, Any]]) -> None:
    first = chunk({"content": "a"}, system_fingerprint="f")
    answer = [first, chunk({"content": "b"}, system_fingerprint="f"), *last, {"choices": [], "usage": USAGE, **VENDOR}]
    written, context = of_upstream(wire_of(answer))
    whole = to_client(written, context)
    for after in range(len(whole)):
        assert to_client(written, context, after=after) == whole[after:]


def test_a_unary_answer_has_them_at_its_top() -> None:
    written, context = of_upstream(wire_of([*LAST_CHUNKS[2], {"choices": [], "usage": USAGE, **VENDOR}]))
    fold = CompletionFold(Endpoint.CHAT_COMPLETIONS)
    fold.add(written)
    body = fold.body("r", "m", 1, End("completed", "", "", "length", len(written), usage=context.usage))
    assert (body["timings"], body["usage"]) == (VENDOR["timings"], USAGE)


def test_an_event_that_is_held_back_comes_before_the_next_one_and_before_an_error() -> None:
    encoder = ChunkEncoder(Endpoint.CHAT_COMPLETIONS, "r", "m", 1, False)
    finish = chunk({"tool_calls": []}, "tool_calls")
    assert encoder.tokens(1, 1, ["a", finish]).count(b"data:") == 1
    assert encoder.is_holding
    assert [name for name, _ in read_events(encoder.held())] == ["1-2"]
    assert [name for name, _ in read_events(encoder.tokens(1, 3, ["b"]))] == ["1-2", "1-3"]
    assert not encoder.is_holding
    assert encoder.held() == encoder.finish("stop") == b""


def test_fields_that_come_too_late_for_the_finish_reason_have_a_chunk_of_their_own() -> None:
    encoder = ChunkEncoder(Endpoint.CHAT_COMPLETIONS, "r", "m", 1, False)
    encoder.tokens(1, 1, [chunk({}, "stop")])
    assert [name for name, _ in read_events(encoder.release())] == ["1-1"]
    assert encoder.tokens(1, 2, [{"choices": [], "usage": None, **VENDOR}]) == b": no event 1-2\n"
    ((_, late),) = read_events(encoder.finish("stop"))
    assert (late["choices"], late["timings"]) == ([], VENDOR["timings"])


def test_one_of_several_choices_is_held_back_only_if_it_is_the_last() -> None:
    encoder = ChunkEncoder(Endpoint.CHAT_COMPLETIONS, "r", "m", 1, False)
    other = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    assert encoder.tokens(1, 1, ["a", other, chunk({}, "stop")]).count(b"data:") == 3
    assert not encoder.is_holding


# fields with the same value in every chunk


def test_a_text_has_the_fields_that_came_last() -> None:
    named = {"system_fingerprint": "f", "service_tier": "default"}
    answer = [
        chunk({"content": "a"}),
        chunk({"content": "b"}, **named),
        chunk({"content": "c"}, **named),
        chunk({"content": "d"}, **named | {"service_tier": "flex"}),
        chunk({"content": "e"}, **named | {"service_tier": "flex"}),
        chunk({"content": "f"}),
        chunk({"content": "g"}, **named | {"service_tier": "flex"}, vendor=1),
        chunk({}, "stop", **named | {"service_tier": "flex"}),
    ]
    usage_chunk = {"choices": [], "usage": USAGE, **named | {"service_tier": "flex"}}
    written, context = of_upstream(wire_of([*answer, usage_chunk]))
    assert [type(event) for event in written] == [str, dict, str, dict, str, dict, dict]
    for batch in (1, 3, 9):
        assert without_envelope(to_client(written, context, batch=batch)) == without_envelope(answer)
    found = to_client(written, context, include_usage=True)
    assert without_envelope(found) == without_envelope([*answer, usage_chunk])
    assert all("usage" in chunk for chunk in found)
