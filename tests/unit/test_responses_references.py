"""References to items of stored responses are replaced by the items; those to other items stay."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints.endpoint import Call
from frontend.endpoints.responses.references import MAX_REFERENCES, with_referenced_items
from lifecycle.fastapi.errors import ApiError
from lifecycle.formats.response_object import new_response
from lifecycle.store.results import Append, Outcome
from lifecycle.types import Endpoint, Labels, RequestType, Storage
from tests.unit.world import MODEL, World

LIMIT_BYTES = 10_000
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}


def message(item_id: str, text: str = "hi") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": [part]}


def reference(item_id: str) -> dict[str, Any]:
    return {"type": "item_reference", "id": item_id}


async def respond(
    world: World,
    rid: str,
    *output: dict[str, Any],
    storage: str = Storage.KEPT,
    endpoint: str = Endpoint.RESPONSES,
    owner: str = "",
    status: Any = "completed",
) -> None:
    """Admit and run a response with this output, and end it as the worker does."""
    response = new_response(rid, 1.0, {}, "completed") | {"output": list(output)}
    event = {"type": "response.completed", "response": response}
    await world.run(rid, body=b'{"input":"hi"}', storage=storage, labels=Labels(MODEL, endpoint, "stream"), owner=owner)
    assert await world.store.append(0, "w0", [Append(rid, 1, 1, orjson.dumps([event]), True)]) == []
    ids = tuple(item["id"] for item in output)
    await world.finish(1, rid=rid, outcome=Outcome(status, finish_reason="stop", item_ids=ids))


async def resolve(
    world: World, *items: dict[str, Any], owner: str = "", limit: int = LIMIT_BYTES, gated: tuple[str, ...] = ()
) -> Call:
    call = Call(Endpoint.RESPONSES, MODEL, RequestType.STREAM, {"model": MODEL, "input": list(items)}, gated=gated)
    return await with_referenced_items(call, world.store, lambda whose: whose == (owner or None), limit)


async def test_an_item_takes_the_place_of_its_reference(world: World) -> None:
    await respond(world, "resp_1", message("msg_1", "one"))
    await respond(world, "resp_2", message("rs_2", "two"), message("msg_2", "three"), storage=Storage.BACKGROUND)
    call = await resolve(
        world,
        reference("msg_1"),
        RESULT,
        {"id": "msg_2"},
        reference("msg_1"),
        gated=("native:input[0].type", "native:tools[0].type", "tools"),
    )
    expected = [message("msg_1", "one"), RESULT, message("msg_2", "three"), message("msg_1", "one")]
    assert call.body == {"model": MODEL, "input": expected}
    assert call.gated == ("native:tools[0].type", "tools"), "chat completions have a form for the items"


@pytest.mark.parametrize("given", ["hi", None, [RESULT]])
async def test_a_call_without_references_is_left_as_it_is(world: World, given: Any) -> None:
    call = Call(Endpoint.RESPONSES, MODEL, RequestType.STREAM, {"input": given})
    assert await with_referenced_items(call, world.store, lambda _: True, 1) is call


@pytest.mark.parametrize(
    "how",
    [{"storage": Storage.TRANSIENT}, {"endpoint": "chat_completions"}, {"owner": "alice"}, {"status": "failed"}],
    ids=lambda how: next(iter(how)),
)
async def test_other_items_stay_references(world: World, how: dict[str, Any]) -> None:
    await respond(world, "resp_1", message("msg_1"), **how)
    call = await resolve(world, reference("msg_1"), gated=("native:input[0].type",))
    assert call.body["input"] == [reference("msg_1")]
    assert call.gated == ("native:input[0].type",)


async def test_the_items_of_a_deleted_response_are_not_found(world: World) -> None:
    await respond(world, "resp_1", message("msg_1"))
    await world.store.delete_content("resp_1")
    assert (await resolve(world, reference("msg_1"))).body["input"] == [reference("msg_1")]


async def test_an_id_that_can_be_no_key_stays(world: World) -> None:
    assert (await resolve(world, reference("no id\n"))).body["input"] == [reference("no id\n")]


async def test_items_are_found_for_the_retention(world: World) -> None:
    await respond(world, "resp_1", message("msg_1"))
    assert await world.store.find_items(["msg_1", "msg_2"]) == {"msg_1": "resp_1"}
    ttl_ms = int(await world.store.command("PTTL", world.prefix + "item:msg_1"))
    assert 0 < ttl_ms <= world.store.settings.retention_secs * 1000


async def test_what_is_too_large_with_its_items_is_refused(world: World) -> None:
    await respond(world, "resp_1", message("msg_1", "x" * 900))
    with pytest.raises(ApiError) as raised:
        await resolve(world, reference("msg_1"), limit=1000)
    assert (raised.value.status, raised.value.code) == (413, "body_too_large")
    assert "the limit is 1000" in raised.value.message


async def test_too_many_references_are_refused(world: World) -> None:
    with pytest.raises(ApiError) as raised:
        await resolve(world, *(reference(f"msg_{number}") for number in range(MAX_REFERENCES + 1)))
    assert (raised.value.status, raised.value.code) == (400, "too_many_references")
