"""Structured events pass through Redis byte for byte, and a request's end keeps what the engine reported."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from lifecycle.store.listener import ConnectionFactory
from lifecycle.store.results import Append, Outcome
from lifecycle.store.worker_roster import Missing
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.tokens.history import read_emitted, read_history
from lifecycle.tokens.inbox import Inbox
from lifecycle.tokens.items import End, Tokens
from lifecycle.tokens.writer import TokenWriter
from lifecycle.tracking.model_registry import ModelRegistry
from lifecycle.types import ErrorDetail, Role
from tests.unit.world import World, unchecked

USAGE: dict[str, Any] = {
    "prompt_tokens": 12,
    "completion_tokens": 20,
    "total_tokens": 32,
    "prompt_tokens_details": {"cached_tokens": 8, "parts": []},
    "cost": 2**53 + 1,
}
DETAIL = ErrorDetail(429, "rate_limited", "slow_down", "messages", 7.5)
# What Lua's JSON library changes: an empty list becomes an object, a large integer loses digits.
ODD = [{"choices": [], "token_ids": [], "empty": {}, "seed": 2**53 + 1, "f": 0.1, "n": None}, "text", {"a": "\u2028é"}]


async def _events(world: World) -> list[Any]:
    page = await read_history(world.store, "r", "0-0")
    return [event for item in page.items if isinstance(item, Tokens) for event in item.events]


async def _end(world: World) -> End:
    page = await read_history(world.store, "r", "0-0")
    assert isinstance(page.items[-1], End)
    return page.items[-1]


async def _append(world: World, number: int, events: list[Any]) -> None:
    entry = Append("r", 1, number, orjson.dumps(events), number == len(events))
    assert await world.store.append(0, "w0", [entry]) == []


@pytest.mark.parametrize("already", [0, 1, 2, 3])
async def test_a_remainder_is_appended_unchanged_whatever_of_it_is_there(world: World, already: int) -> None:
    """An append whose reply was lost may have been executed."""
    await world.run()
    if already:
        await _append(world, already, ODD[:already])
    last = Append("r", 1, 3, orjson.dumps(ODD), True)
    ended = await world.store.finish("r", "w0", 1, Outcome("completed", finish_reason="stop"), 3, remainder=last)
    assert ended.what == "done"
    assert orjson.dumps(await _events(world)) == orjson.dumps(ODD)
    assert await read_emitted(world.store, "r", 3, 0.0) == ODD


async def _nobody() -> Any:
    raise ConnectionRefusedError


@pytest.mark.parametrize("length", [4_000, 4_097, 30_000])
async def test_an_inbox_hands_on_the_last_tokens_and_the_end_whatever_their_length(world: World, length: int) -> None:
    """Long tokens come apart from their frame, and as the bytes that the worker has written."""
    await world.run()
    told: list[tuple[Any, ...]] = []
    inbox = Inbox(ConnectionFactory(_nobody, 1.0, set()), "inbox", lambda *item: told.append(item), lambda: None)
    pubsub: Any = world.store.commands._client.pubsub()
    await pubsub.ssubscribe(world.store.keys.inbox(0, "f0"))
    encoded = orjson.dumps(["first", {"embedding": "é" * (length // 2)}])
    last = Append("r", 1, 2, encoded, True)
    ended = await world.store.finish("r", "w0", 1, Outcome("completed", finish_reason="stop"), 2, remainder=last)
    assert ended.what == "done"
    await pubsub.ping()
    while (message := await pubsub.get_message(timeout=5.0))["type"] != "pong":
        if message["type"] == "smessage":
            inbox._take([[b"smessage", b"inbox", message["data"]]])
    await pubsub.aclose()
    (rid, entry_id, events, _), (_, _, end) = told
    assert (rid, entry_id, [*events]) == ("r", "1-2", orjson.loads(encoded))
    assert isinstance(events, EncodedEvents) is (len(encoded) > 4096)
    assert (end["type"], end["outcome"]["last"]) == ("terminal", 2)


async def test_a_sink_carries_objects_and_texts(world: World) -> None:
    await world.run()
    sink = TokenWriter(world.store, ["w0"]).open("r", unchecked(), lambda why: None)
    for event in (*ODD, {"delta": {"content": "a\ud800"}}):
        assert sink.put(event, 1)  # type: ignore[arg-type]
    assert (await sink.finish(Outcome("completed", content_events=3), 0.0)).what == "done"
    assert await _events(world) == [*ODD, {"delta": {"content": "a\ufffd"}}]
    assert (await world.record()).output_events == 3


async def test_the_record_keeps_the_usage_and_counts_the_events_of_the_stream_apart(world: World) -> None:
    await world.run()
    await _append(world, 2, ODD[:2])
    running = await world.record()
    assert (running.output_tokens, running.output_events, running.stream_length, running.usage) == (2, 2, 2, None)
    await world.finish(2, outcome=Outcome("completed", finish_reason="stop", usage=USAGE, content_events=1))
    record = await world.record()
    assert (record.output_tokens, record.output_events, record.stream_length) == (20, 1, 2)
    assert (record.usage, record.input_tokens) == (USAGE, 12)
    shown = record.to_json()
    assert (shown["usage"], shown["output_events"], "stream_length" in shown) == (USAGE, 1, False)
    end = await _end(world)
    assert (end.last, end.output_tokens, end.usage, end.input_tokens) == (2, 20, USAGE, 12)


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}, {"completion_tokens": "9"}, {"x": "\ud800"}])
async def test_without_a_usable_report_tokens_are_counted_by_events(world: World, usage: dict[str, Any] | None) -> None:
    await world.run()
    await _append(world, 2, ["a", "b"])
    await world.finish(2, outcome=Outcome("completed", finish_reason="stop", usage=usage, content_events=2))
    record = await world.record()
    assert (record.output_tokens, record.output_events, record.stream_length) == (2, 2, 2)


async def test_an_end_without_its_worker_counts_every_event(world: World) -> None:
    await world.run()
    await _append(world, 2, ["a", "b"])
    assert (await world.store.fail("r", "response_timeout", "silence")).what == "done"
    record = await world.record()
    assert (record.output_tokens, record.output_events, record.usage) == (2, 2, None)


async def test_a_killed_request_counts_no_more_events_than_its_stream_has(world: World) -> None:
    await world.run()
    await _append(world, 1, ["a"])
    await world.cancel()
    await world.finish(1, outcome=Outcome("cancelled", "cancelled", usage=USAGE, content_events=9))
    record = await world.record()
    assert (record.output_events, record.stream_length, record.output_tokens) == (1, 1, 20)


async def test_the_detail_of_an_error_reaches_the_stream_and_the_record(world: World) -> None:
    await world.run()
    await world.finish(outcome=Outcome("failed", "overload", "slow down", detail=DETAIL._replace(code="c\ud800")))
    assert (await _end(world)).detail == DETAIL._replace(code="c\ufffd")
    record = await world.record()
    assert record.error_detail == DETAIL._replace(code="c\ufffd")
    assert "error_detail" not in record.to_json()


async def test_a_cancelled_request_has_no_detail(world: World) -> None:
    await world.run()
    await world.cancel()
    await world.finish(outcome=Outcome("failed", "overload", "slow down", detail=DETAIL))
    assert (await world.record()).error_detail is None


async def test_the_end_is_in_the_metrics(world: World) -> None:
    await world.run()
    await _append(world, 2, ["a", "b"])
    ended = await world.finish(2, outcome=Outcome("completed", usage=USAGE, content_events=1))
    metrics = Metrics()
    assert ended.record is not None
    metrics.of(ended.record.counted_as).observe_end(ended.record)
    for name, value in (("input_tokens", 12), ("output_events", 1)):
        assert metrics.registry.get_sample_value(f"lifecycle_{name}_total", {"model": "m"}) == value


async def test_a_gated_parameter_needs_one_worker_that_takes_all_of_them(world: World) -> None:
    models = ModelRegistry(world.store)
    assert await models.find_unsupported("m", "completions", ("tools",)) is None, "no worker of it is known here"
    await world.store.heartbeat("w0", Role.WORKER, {"models": ["m"], "endpoints": {"completions": "native"}}, ["m"])
    await models.refresh()
    assert await models.find_unsupported("m", "completions", ("tools", "n")) == Missing("completions", "tools")
    await world.store.heartbeat(
        "w0", Role.WORKER, {"models": ["m"], "endpoints": {"completions": "native"}, "accepts": ["tools"]}, ["m"]
    )
    await world.store.heartbeat(
        "w1",
        Role.WORKER,
        {"models": ["m"], "endpoints": {"completions": "native"}, "accepts": ["n", "logprobs"]},
        ["m"],
    )
    await models.refresh()
    assert await models.find_unsupported("m", "completions", ("n", "logprobs")) is None
    assert await models.find_unsupported("m", "completions", ("tools", "n", "logprobs")) == Missing(
        "completions", "tools"
    )
    await world.store.heartbeat(
        "w0", Role.WORKER, {"models": ["m"], "endpoints": {"completions": "native"}, "accepts": ["*"]}, ["m"]
    )
    assert await models.find_unsupported("m", "completions", ("tools", "n", "echo")) is None, (
        "the roster is read again first"
    )


async def test_what_is_served_is_known_until_the_next_roster(world: World) -> None:
    models = ModelRegistry(world.store)

    async def announce(**about: object) -> None:
        shown = {"models": ["m"], "endpoints": {"completions": "native"}, "accepts": ["n"], **about}
        await world.store.heartbeat("w0", Role.WORKER, shown, ["m"])
        await models.refresh()

    assert not models.is_served("m", "completions", ()), "no worker of it is known here"
    await announce()
    for _ in range(2):  # found by the workers, and then remembered
        assert models.is_served("m", "completions", ("n",))
        assert not models.is_served("m", "completions", ("tools",))
        assert not models.is_served("m", "embeddings", ())
        assert not models.is_served("another", "completions", ())
    for state in ("starting", "draining", "unhealthy"):
        await announce()
        assert models.is_served("m", "completions", ("n",))
        await announce(state=state)
        assert not models.is_served("m", "completions", ("n",)), state
