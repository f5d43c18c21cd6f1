"""Stored responses on a real Redis Cluster: a response and the one that it continues may be on different nodes."""

from __future__ import annotations

from typing import Any

import orjson

from frontend.endpoints.endpoint import Call
from frontend.endpoints.responses.context import with_context
from lifecycle.formats.response_object import new_response
from lifecycle.store.connect import open_store
from lifecycle.store.results import Append, Outcome
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, Labels, RequestType, Role, Storage
from tests.admitting import admit
from tests.cluster_setup import ClusterSetup
from tests.conftest import MakeSettings
from tests.joining import join
from tests.leaks import assert_no_leaks
from tests.unit.world import MODEL, World

LABELS = Labels(MODEL, Endpoint.RESPONSES, "stream")
ANSWER = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": []}
BODY_BYTES = 3000


def in_shard(store: Store, shard: int, count: int) -> list[str]:
    """Return ids of responses that belong to this shard."""
    ids = (f"resp_{number}" for number in range(10_000))
    found = (rid for rid in ids if store.keys.shard_of(rid) == shard)
    return [next(found) for _ in range(count)]


async def respond(store: Store, rid: str, body: dict[str, Any]) -> None:
    """Admit, run and complete a response of one event, in whichever shard it belongs to."""
    world = World(store)
    world.shard, world.prefix = store.keys.shard_of(rid), store.keys.prefix_of(rid)
    await admit(store, rid, labels=LABELS, body=orjson.dumps(body), storage=Storage.KEPT)
    await join(store, f"w-{rid}", Role.WORKER, models=[MODEL])
    assert (await world.take(f"w-{rid}")).rid == rid
    response = new_response(rid, 1.0, body, "completed") | {"output": [ANSWER]}
    events = orjson.dumps([{"type": "response.completed", "response": response}])
    ended = await store.finish(rid, f"w-{rid}", 1, Outcome("completed"), 1, remainder=Append(rid, 1, 1, events, True))
    assert ended.what == "done"


async def test_content_is_kept_continued_bounded_and_deleted_in_every_shard(make_settings: MakeSettings) -> None:
    with ClusterSetup() as setup:
        settings = make_settings(redis_url=setup.url, shards=16, stored_bytes=16 * 3 * BODY_BYTES)
        async with open_store(settings) as store:
            await _check(store)


async def _check(store: Store) -> None:
    await join(store, "f0", Role.FRONTEND)
    await join(store, "w0", Role.WORKER, models=[MODEL])
    previous, following = in_shard(store, 0, 1)[0], in_shard(store, 15, 1)[0]
    await respond(store, previous, {"input": "hi"})
    call = Call(Endpoint.RESPONSES, MODEL, RequestType.UNARY, {"input": "more", "previous_response_id": previous})
    call = await with_context(call, store, lambda owner: owner is None, 10_000)
    await respond(store, following, call.body)
    content = await store.read_content(following)
    assert content is not None
    assert content.body is not None
    said = [item.get("content") for item in orjson.loads(content.body)["input"]]
    assert said == ["hi", [], "more"]

    many = in_shard(store, 7, 6)
    for rid in many:
        await respond(store, rid, {"input": "x" * BODY_BYTES})
    contents = {rid: await store.read_content(rid) for rid in (*many, previous)}
    kept = {rid for rid, held in contents.items() if held is not None and held.body is not None}
    assert previous in kept, "another shard has its own part of the limit"
    assert many[0] not in kept
    assert many[-1] in kept

    deletion = await store.delete_content(following)
    assert deletion is not None
    assert deletion.record.storage == Storage.DELETED
    await assert_no_leaks(store)
