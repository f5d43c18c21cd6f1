"""A call continues a stored response: its input and output come before the call's own input."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.endpoint import Call
from frontend.endpoints.responses.context import with_context
from frontend.endpoints.responses.input_items import input_items
from lifecycle.fastapi.errors import ApiError
from lifecycle.formats.response_object import new_response
from lifecycle.store.results import Append, Outcome
from lifecycle.types import Endpoint, Event, Labels, RequestType, Storage
from tests.unit.world import MODEL, World

LABELS = Labels(MODEL, Endpoint.RESPONSES, "stream")
LIMIT_BYTES = 10_000
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "c1",
    "name": "look",
    "arguments": "{}",
    "status": "completed",
}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def answer(rid: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": f"answer of {rid}", "annotations": [], "logprobs": []}
    return {"type": "message", "id": f"msg_{rid}", "role": "assistant", "status": "completed", "content": [part]}


def ending(rid: str, *output: dict[str, Any]) -> Event:
    response = new_response(rid, 1.0, {}, "completed") | {"output": list(output)}
    return {"type": "response.completed", "response": response}


async def respond(
    world: World,
    rid: str,
    body: dict[str, Any],
    *events: Event,
    storage: str = Storage.KEPT,
    labels: Labels = LABELS,
    owner: str = "",
    outcome: Outcome | None = None,
    ends: bool = True,
) -> None:
    """Admit and run a response that yields these events in one entry, by default those of a whole answer."""
    events = events or (ending(rid, answer(rid)),)
    await world.run(rid, body=orjson.dumps(body), storage=storage, labels=labels, owner=owner)
    refused = await world.store.append(0, "w0", [Append(rid, 1, len(events), orjson.dumps(events), True)])
    assert refused == []
    if ends:
        await world.finish(len(events), rid=rid, outcome=outcome)


async def extend(world: World, previous: str, own: Any, *, owner: str = "", limit: int = LIMIT_BYTES) -> Call:
    body = {"input": own, "previous_response_id": previous, "model": MODEL}
    call = Call(Endpoint.RESPONSES, MODEL, RequestType.STREAM, body, gated=("tools",))
    return await with_context(call, world.store, lambda whose: whose == (owner or None), limit)


async def expand(world: World, previous: str, own: Any, **call: Any) -> dict[str, Any]:
    return (await extend(world, previous, own, **call)).body


async def refuse(world: World, previous: str, **call: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await expand(world, previous, "and then?", **call)
    assert raised.value.param == "previous_response_id"
    return raised.value


async def test_a_call_that_continues_nothing_is_left_as_it_is(world: World) -> None:
    call = Call(Endpoint.RESPONSES, MODEL, RequestType.STREAM, {"input": "hi", "previous_response_id": None})
    assert await with_context(call, world.store, lambda _: True, LIMIT_BYTES) is call


async def test_the_previous_input_and_output_come_before_the_new_input(world: World) -> None:
    await respond(world, "resp_1", {"input": "hi", "instructions": "Be brief."})
    body = await expand(world, "resp_1", "and then?")
    assert body == {
        "input": [user("hi"), answer("resp_1"), user("and then?")],
        "previous_response_id": "resp_1",
        "model": MODEL,
    }


async def test_a_chain_carries_everything_that_was_said(world: World) -> None:
    await respond(world, "resp_1", {"input": "hi"})
    second = await expand(world, "resp_1", [user("and then?")])
    await respond(world, "resp_2", second, ending("resp_2", CALL), storage=Storage.BACKGROUND)
    result = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
    third = await expand(world, "resp_2", [result])
    assert third["input"] == [user("hi"), answer("resp_1"), user("and then?"), CALL, result]
    assert [item["id"] for item in input_items(third)][:3] == [item["id"] for item in input_items(second)]


async def test_items_without_a_form_in_chat_completions_need_an_engine_that_serves_responses(world: World) -> None:
    await respond(world, "resp_1", {"input": "hi"})
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    await respond(world, "resp_2", {"input": "hi"}, ending("resp_2", search, answer("resp_2")))
    assert (await extend(world, "resp_1", "more")).gated == ("tools",)
    assert (await extend(world, "resp_2", "more")).gated == ("tools", "native:previous_response_id")


async def test_an_answer_that_was_stopped_is_continued_as_far_as_it_came(world: World) -> None:
    added = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    delta = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "so far"}
    events = ({"type": "response.output_item.added", "output_index": 0, "item": added}, delta)
    await respond(world, "resp_1", {"input": "hi"}, *events)
    body = await expand(world, "resp_1", "go on")
    assert body["input"][1]["content"][0]["text"] == "so far"
    assert len(body["input"]) == 3


@pytest.mark.parametrize("previous", ["resp_unknown", "", "no id\n"])
async def test_an_unknown_response_is_not_found(world: World, previous: str) -> None:
    error = await refuse(world, previous)
    assert (error.status, error.code) == (400, "previous_response_not_found")
    assert "does not exist" in error.message


async def test_the_response_of_another_owner_is_not_found(world: World) -> None:
    await respond(world, "resp_1", {"input": "hi"}, owner="alice")
    assert "does not exist" in (await refuse(world, "resp_1", owner="bob")).message
    assert (await expand(world, "resp_1", "more", owner="alice"))["input"][0] == user("hi")


async def test_a_request_of_another_endpoint_is_not_found(world: World) -> None:
    await respond(world, "chatcmpl-1", {"messages": []}, "token", labels=LABELS._replace(endpoint="chat_completions"))
    assert (await refuse(world, "chatcmpl-1")).code == "previous_response_not_found"


@pytest.mark.parametrize(
    ("storage", "outcome", "ends", "why"),
    [
        (Storage.TRANSIENT, None, True, "store=false"),
        (Storage.KEPT, None, False, "has not ended"),
        (Storage.KEPT, Outcome("failed", "internal", "why"), True, "ended as failed"),
        (Storage.BACKGROUND, Outcome("cancelled", "cancelled", "why"), True, "ended as cancelled"),
    ],
)
@pytest.mark.leaves_inflight
async def test_what_cannot_be_continued_says_why(
    world: World, storage: str, outcome: Outcome | None, ends: bool, why: str
) -> None:
    await respond(world, "resp_1", {"input": "hi"}, storage=storage, outcome=outcome, ends=ends)
    error = await refuse(world, "resp_1")
    assert (error.status, error.code) == (400, "previous_response_not_found")
    assert why in error.message


async def test_a_deleted_response_is_not_continued(world: World) -> None:
    await respond(world, "resp_1", {"input": "hi"})
    await world.store.delete_content("r")
    await world.store.delete_content("resp_1")
    assert "was deleted" in (await refuse(world, "resp_1")).message


@pytest.mark.parametrize("lost", ["body", "tokens"])
async def test_an_answer_is_not_continued_without_a_part_of_it(world: World, lost: str) -> None:
    """Its content may be deleted while it is read: the record was read before."""
    await respond(world, "resp_1", {"input": "hi"})
    await world.store.command("DEL", f"{world.prefix}{lost}:resp_1")
    assert "has just expired" in (await refuse(world, "resp_1")).message


async def test_what_is_too_large_with_its_context_is_refused(world: World) -> None:
    await respond(world, "resp_1", {"input": "x" * 900})
    error = await refuse(world, "resp_1", limit=1000)
    assert (error.status, error.code) == (413, "body_too_large")
    assert "the limit is 1000" in error.message
