"""Responses in the background with OpenAI's SDK, by translation into chat, on one server and on a Redis Cluster."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.cluster import Cluster
from tests.conformance.test_openai_sdk import ENDLESS, PROMPT, Sdk, sdk_for
from tests.waiting import wait_until


@pytest.fixture
async def here(cluster: Cluster) -> AsyncIterator[Sdk]:
    async with sdk_for(cluster.frontends[0].url) as sdk:
        yield sdk


@pytest.fixture
async def there(cluster: Cluster) -> AsyncIterator[Sdk]:
    async with sdk_for(cluster.frontends[1].url) as sdk:
        yield sdk


async def ended(sdk: Sdk, rid: str) -> Response:
    async def found() -> Response | None:
        response = await sdk.client.responses.retrieve(rid)
        return None if response.status in ("queued", "in_progress") else response

    return await wait_until(found)


async def test_a_response_is_retrieved_continued_and_deleted_elsewhere(here: Sdk, there: Sdk) -> None:
    started = await here.client.responses.create(model="echo", input=PROMPT, background=True)
    assert started.status == "queued"
    response = await ended(there, started.id)
    assert (response.status, response.output_text) == ("completed", PROMPT)
    continued = await there.client.responses.create(model="echo", input="more", previous_response_id=started.id)
    listed = here.client.responses.input_items.list(continued.id, order="asc")
    assert [item.to_dict()["type"] async for item in listed] == ["message"] * 3
    await there.client.responses.delete(started.id)
    with pytest.raises(openai.NotFoundError):
        await here.client.responses.retrieve(started.id)


async def test_a_stream_is_resumed_elsewhere(here: Sdk, there: Sdk) -> None:
    events: list[Any] = []
    stream = await here.client.responses.create(model="echo", input=PROMPT, background=True, stream=True)
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    events += [
        event
        async for event in await there.client.responses.retrieve(
            events[0].response.id, stream=True, starting_after=events[-1].sequence_number
        )
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == PROMPT
    assert events[-1].response.output_text == PROMPT


async def test_a_response_is_cancelled_elsewhere(here: Sdk, there: Sdk, cluster: Cluster) -> None:
    started = await here.client.responses.create(model="echo", input=PROMPT, background=True, extra_body=ENDLESS)

    async def begun() -> bool:
        return bool((await there.client.responses.retrieve(started.id)).output_text)

    await wait_until(begun)
    cancelled = await there.client.responses.cancel(started.id)
    assert cancelled.status == "cancelled"
    assert cancelled.output_text.startswith("The")
    record = await cluster.record(started.id)
    assert (record["status"], record["endpoint"]) == ("cancelled", "responses")


async def test_a_failing_engine_is_told_in_each_form(here: Sdk, there: Sdk) -> None:
    with pytest.raises(openai.InternalServerError, match="boom"):
        await here.client.with_options(max_retries=0).responses.create(model="raiser", input="boom")
    started = await here.client.responses.create(model="raiser", input="boom", background=True)
    failed = await ended(there, started.id)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "internal", "boom")
    events = [event async for event in await there.client.responses.retrieve(started.id, stream=True)]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error == failed.error
    assert events[-1].response.output_text == failed.output_text == "one two three"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools"),
    ],
)
async def test_what_no_worker_can_do_is_named_as_the_client_wrote_it(
    here: Sdk, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=re.escape(f"'{param}'")) as refused:
        await here.client.responses.create(model="raiser", input=PROMPT, **fields)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)


async def test_the_record_counts_what_the_engine_produced_not_the_events_around_it(here: Sdk, cluster: Cluster) -> None:
    response = await here.client.responses.create(model="echo", input=PROMPT)
    assert response.usage is not None
    message = await cluster.http.post(
        cluster.frontends[0].url + "/v1/messages",
        json={"model": "echo", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]},
    )
    for rid, told in (
        (response.id, response.usage.output_tokens),
        (message.json()["id"], message.json()["usage"]["output_tokens"]),
    ):
        record = (await cluster.http.get(cluster.frontends[1].url + f"/v1/requests/{rid}")).json()
        assert record["output_tokens"] == record["output_events"] == told == len(PROMPT.split())


async def test_a_cancelled_response_tells_how_much_was_generated(here: Sdk, there: Sdk, cluster: Cluster) -> None:
    started = await here.client.responses.create(model="echo", input=PROMPT, background=True, extra_body=ENDLESS)
    async for event in await here.client.responses.retrieve(started.id, stream=True):
        if event.type == "response.output_text.delta":
            break
    cancelled = await there.client.responses.cancel(started.id)
    assert (cancelled.status, cancelled.usage is not None) == ("cancelled", True)
    record = (await cluster.http.get(cluster.frontends[0].url + f"/v1/requests/{started.id}")).json()
    assert cancelled.usage is not None
    assert cancelled.usage.output_tokens == record["output_tokens"] == record["output_events"] > 0
