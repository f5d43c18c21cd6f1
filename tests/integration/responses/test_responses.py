"""The Responses API through the official SDK, with an engine that serves it itself, at any of two frontends."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent

from tests.cluster import Cluster
from tests.conformance.calls import until
from tests.integration.responses.client import MODEL, TEXT, all_of, must_be_contiguous, text_of


async def test_create(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    answer = await here.responses.create(model=MODEL, input=TEXT, instructions="Echo.", metadata={"a": "b"})
    assert answer.id.startswith("resp_")
    assert (answer.object, answer.status, answer.model, answer.error) == ("response", "completed", MODEL, None)
    assert answer.output_text == TEXT
    assert (answer.instructions, answer.metadata, answer.background) == ("Echo.", {"a": "b"}, False)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (4, 3, 7)
    retrieved = await here.responses.retrieve(answer.id, include=["message.output_text.logprobs"])
    assert retrieved == answer, "what cannot be included is left out"
    record = await until(cluster, answer.id, "completed")
    assert (record["endpoint"], record["request_type"], record["finish_reason"]) == ("responses", "unary", "stop")
    assert record["usage"]["prompt_tokens"] == 4
    assert record["output_events"] == len(TEXT.split())
    assert answer.created_at == int(record["created_at"])


async def test_stream(here: openai.AsyncOpenAI) -> None:
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, stream=True))
    must_be_contiguous(events)
    assert [events[0].type, events[1].type, events[-1].type] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[0].response.id == events[-1].response.id
    assert events[-1].response.output_text == TEXT


async def test_the_wire_format(cluster: Cluster) -> None:
    reply = await cluster.http.post(
        cluster.frontends[0].url + "/v1/responses", json={"model": MODEL, "input": "hi", "stream": True}
    )
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, *_, last = reply.text.strip().split("\n\n")
    assert first.startswith('id: 1-1\nevent: response.created\ndata: {"type":"response.created",')
    assert first.endswith('"sequence_number":0}')
    assert last.split("\n")[1] == "event: response.completed"
    assert "[DONE]" not in reply.text


async def test_the_id_of_an_event_resumes_behind_it(cluster: Cluster) -> None:
    """A browser's EventSource sends it by itself when it connects again, to the URL that it has."""
    created = await cluster.http.post(cluster.frontends[0].url + "/v1/responses", json={"model": MODEL, "input": TEXT})
    url = f"{cluster.frontends[1].url}/v1/responses/{created.json()['id']}?stream=true"
    events = [event + "\n\n" for event in (await cluster.http.get(url)).text.split("\n\n")[:-1]]
    for place, event in enumerate(events, start=1):
        told = {"Last-Event-ID": event.split("\n")[0].removeprefix("id: ")}
        rest = await cluster.http.get(url + "&starting_after=0", headers=told)
        assert (rest.status_code, rest.text) == (200, "".join(events[place:]))
    other_attempt = await cluster.http.get(url, headers={"Last-Event-ID": "2-1"})
    assert '"code":"state_lost"' in other_attempt.text
    malformed = await cluster.http.get(url, headers={"Last-Event-ID": "1-x"})
    assert (malformed.status_code, malformed.json()["error"]["param"]) == (400, "Last-Event-ID")


async def test_the_sdks_own_stream_helper(here: openai.AsyncOpenAI) -> None:
    async with here.responses.stream(model=MODEL, input=TEXT) as stream:
        texts = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(texts) == final.output_text == TEXT


async def test_an_incomplete_answer(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    told = {"ends": "max_output_tokens"}
    answer = await here.responses.create(model=MODEL, input=TEXT, metadata=told)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert (await until(cluster, answer.id, "completed"))["finish_reason"] == "length"
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, metadata=told, stream=True))
    assert events[-1].type == "response.incomplete"
    assert (await here.responses.retrieve(answer.id)).status == "incomplete"


async def test_input_items(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    given: Any = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    answer = await here.responses.create(model=MODEL, input=given)
    listed = there.responses.input_items.list(answer.id, order="asc", limit=2)
    texts = [text_of(item) async for item in listed]
    assert texts == ["one", "two", "three"]
    first = await there.responses.input_items.list(answer.id, limit=1)
    assert first.has_more
    assert text_of(first.data[0]) == "three"
    with pytest.raises(openai.BadRequestError, match="no input item"):
        await there.responses.input_items.list(answer.id, after="msg_unknown")


@pytest.mark.parametrize("code", ["server_error", "odd_code"])
async def test_failures(here: openai.AsyncOpenAI, cluster: Cluster, code: str) -> None:
    """A unary call that fails is an HTTP error; a stream that has begun ends with `response.failed`."""
    told = {"fails": code}
    with pytest.raises(openai.InternalServerError) as raised:
        await here.responses.create(model=MODEL, input=TEXT, metadata=told)
    assert (raised.value.code, raised.value.type) == (code, "internal_server_error")
    events = await all_of(await here.responses.create(model=MODEL, input=TEXT, metadata=told, stream=True))
    must_be_contiguous(events)
    failed = events[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert (failed.response.error.code, failed.response.error.message) == (code, "No")
    assert failed.response.output_text == "The quick"
    response = await here.responses.retrieve(failed.response.id)
    assert response.status == "failed"
    assert response.error == failed.response.error
    last = await all_of(
        await here.responses.retrieve(failed.response.id, stream=True, starting_after=failed.sequence_number - 1)
    )
    assert last == [failed]
    nothing = await here.responses.retrieve(failed.response.id, stream=True, starting_after=failed.sequence_number)
    assert await all_of(nothing) == []


async def test_a_stream_that_fails_before_any_content_is_an_http_error(here: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        await here.responses.create(model=MODEL, input=TEXT, metadata={"refuses": "rate_limit_exceeded"}, stream=True)
    assert raised.value.code == "rate_limit_exceeded"


async def test_a_response_that_is_not_stored(here: openai.AsyncOpenAI) -> None:
    answer = await here.responses.create(model=MODEL, input=TEXT, store=False)
    assert answer.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        await here.responses.input_items.list(answer.id)
    with pytest.raises(openai.BadRequestError, match="store"):
        await here.responses.create(model=MODEL, input=TEXT, store=False, background=True)


async def test_a_stop_completes_the_response_with_what_there_is(
    here: openai.AsyncOpenAI, cluster: Cluster, gate: Path
) -> None:
    stream = await here.responses.create(model=MODEL, input=TEXT, stream=True, metadata={"gate": str(gate)})
    events: list[ResponseStreamEvent] = []
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta" and event.delta == " quick":
            break
    assert events[0].type == "response.created"
    rid = events[0].response.id
    await cluster.http.post(f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel?mode=stop")
    events += await all_of(stream)
    must_be_contiguous(events)
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "The quick"
    assert events[-1].response == (await here.responses.retrieve(rid))


async def test_ids(here: openai.AsyncOpenAI, cluster: Cluster) -> None:
    own = f"job-{secrets.token_hex(4)}"
    answer = await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": own})
    assert answer.id == "resp_" + own
    assert answer._request_id == answer.id
    kept = f"resp_{secrets.token_hex(4)}"
    assert (await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": kept})).id == kept
    with pytest.raises(openai.BadRequestError, match="1 to 123 characters"):
        await here.responses.create(model=MODEL, input="hi", extra_headers={"X-Request-Id": "x" * 124})
    chat = f"{cluster.frontends[0].url}/v1/responses/unknown"
    assert (await cluster.http.get(chat)).json()["error"]["code"] == "response_not_found"


async def test_a_response_is_continued(here: openai.AsyncOpenAI, there: openai.AsyncOpenAI) -> None:
    first = await here.responses.create(model=MODEL, input="one two")
    second = await there.responses.create(model=MODEL, input="three four", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    items = [item async for item in here.responses.input_items.list(second.id, order="asc")]
    texts = [text_of(item) for item in items]
    assert texts == ["one two", "one two", "three four"]
    with pytest.raises(openai.BadRequestError) as refused:
        await here.responses.create(model=MODEL, input="x", previous_response_id="resp_unknown")
    assert refused.value.code == "previous_response_not_found"
