"""Read the answer of a forward, find the model of a call that names none, and stop one without an answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.forwards.answer import AnswerEncoder, AnswerFold
from lifecycle.formats.event_format import format_of
from lifecycle.formats.event_text import answers_as_text, events_of
from lifecycle.formats.origin import Origin
from lifecycle.store.results import Outcome
from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.tokens.items import End
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.types import CancelMode, Event, ReplicaState, Role
from tests.joining import join
from tests.unit.world import World

ANSWER: dict[str, Any] = {"data": [{"embedding": (0.5, 1)}], "usage": {"prompt_tokens": 2, "cost": 0.1}, "none": None}
COMPLETED = End("completed", "", "", "stop", 1)


def origin(*emitted: Event) -> Origin:
    return Origin("r", 0.0, {}, emitted)


def test_an_answer_is_written_as_it_is_and_its_usage_is_noted() -> None:
    produced = format_of("embeddings", origin()).read(ANSWER)
    answer = '{"data":[{"embedding":[0.5,1]}],"usage":{"prompt_tokens":2,"cost":0.1},"none":null}'
    assert produced.encoded.decode() == answer
    assert (produced.has_content, produced.is_opening, produced.usage) == (True, False, ANSWER["usage"])
    assert format_of("rerank", origin()).read({"usage": "much"}).usage is None


def test_an_answer_that_a_decoder_would_change_is_a_text_of_its_json() -> None:
    produced = format_of("embeddings", origin()).read({"sum": 2**70})
    assert orjson.loads(produced.encoded) == '{"sum": 1180591620717411303424}'


def test_the_answer_to_a_call_that_counts_tokens_is_a_text_of_its_json() -> None:
    produced = format_of("count_tokens", origin()).read({"input_tokens": 3})
    assert orjson.loads(produced.encoded) == '{"input_tokens":3}'


@pytest.mark.parametrize("size", [1, 5_000])
@pytest.mark.parametrize("value", [0.1, 1e22, -0.0, 5e-324, 2**63, '\u2028\x00"\\ü𝄞', None, [], {}])
def test_a_client_gets_the_bytes_that_the_engine_s_answer_was_written_as(value: Any, size: int) -> None:
    """It does so from a push, which is not decoded, and from the stream, which is."""
    encoded = format_of("embeddings", origin()).read({"value": [value] * size}).encoded
    pushed = EncodedEvents(b"[" + encoded + b"]", 1)
    for events in (
        pushed,
        [orjson.loads(encoded)],
        [encoded.decode()],
        EncodedEvents(orjson.dumps([encoded.decode()]), 1),
    ):
        fold = AnswerFold()
        fold.add(events)
        assert orjson.dumps(fold.body("r", "m", 0, COMPLETED)) == encoded
        assert AnswerEncoder("r").tokens(1, 1, events) == b"id: 1-1\ndata: " + encoded + b"\n\n"


def test_readers_of_the_stream_get_an_answer_in_either_form() -> None:
    events: list[Event] = [{"a": [0.5]}, '{"a":[0.5]}']
    assert events_of("rerank", events) == [{"a": [0.5]}, {"a": [0.5]}]
    assert answers_as_text("rerank", events) == ['{"a":[0.5]}', '{"a":[0.5]}']
    assert events_of("chat_completions", events) == answers_as_text("chat_completions", events) == events


@pytest.mark.parametrize("event", ["text", None, [1], {"a": object()}])
def test_what_is_no_answer_is_refused(event: object) -> None:
    with pytest.raises(TypeError, match="the engine yielded"):
        format_of("score", origin()).read(event)


def test_a_second_answer_is_refused_in_a_later_attempt_too() -> None:
    answered = format_of("tokenize", origin('{"tokens":[]}'))
    with pytest.raises(TypeError, match="for the endpoint tokenize it must yield exactly one dict"):
        answered.read(ANSWER)


async def _heartbeat(world: World, worker: str, model: str, *endpoints: str, state: str = ReplicaState.READY) -> None:
    about = {"models": [model], "endpoints": dict.fromkeys(endpoints, "native"), "state": state}
    await join(world.store, worker, Role.WORKER, about, [model])


async def test_a_call_may_mean_the_models_that_offer_its_endpoint(world: World) -> None:
    models = ModelRegistry(world.store)
    await _heartbeat(world, "w0", "m", "embeddings", state=ReplicaState.STARTING)
    assert await models.find_models("embeddings") == ["m"], "it is known, and none is offered"
    await _heartbeat(world, "w1", "chat", "chat_completions")
    assert await models.find_models("embeddings") == ["chat"], "the refusal then names it"
    await _heartbeat(world, "w2", "vectors", "embeddings")
    assert await models.find_models("embeddings") == ["vectors"]
    await _heartbeat(world, "w3", "more", "embeddings", "rerank")
    assert await models.find_models("embeddings") == ["more", "vectors"]
    assert await models.find_models("rerank") == ["more"]


async def test_a_stop_that_is_reported_as_cancelled_keeps_its_reason(world: World) -> None:
    await world.run()
    await world.store.cancel("r", CancelMode.STOP, "no need")
    ended = await world.store.finish("r", "w0", 1, Outcome("cancelled", message="cancelled"), 0)
    assert ended.what == "done"
    assert ended.record is not None
    assert (ended.record.status, ended.record.error_type) == ("cancelled", "cancelled")
    assert (ended.record.error_message, ended.record.cancel_mode) == ("no need", "stop")
