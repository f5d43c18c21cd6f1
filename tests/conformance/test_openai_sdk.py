"""The official SDK as the client: what a user of `openai` writes, sees and catches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, until

PROMPT = "The quick brown fox jumps"
WORDS = 5
ENDLESS: dict[str, Any] = {"echo_repeat": 1_000_000_000}


def says(text: str = PROMPT) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@dataclass
class Sdk:
    """The SDK with its own defaults, retries included, and how often it called."""

    client: openai.AsyncOpenAI
    calls: list[str] = field(default_factory=list)


@asynccontextmanager
async def sdk_for(url: str) -> AsyncIterator[Sdk]:
    calls: list[str] = []

    async def note(request: httpx2.Request) -> None:
        calls.append(request.url.path)

    async with httpx2.AsyncClient(trust_env=False, timeout=30, event_hooks={"request": [note]}) as http:
        yield Sdk(openai.AsyncOpenAI(base_url=url + "/v1", api_key="none", http_client=http), calls)


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[Sdk]:
    async with sdk_for(cluster.frontends[0].url) as sdk:
        yield sdk


# What goes well


async def test_chat(sdk: Sdk) -> None:
    answer = await sdk.client.chat.completions.create(model="echo", messages=says())
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", PROMPT, "stop")
    assert (answer.object, answer.model) == ("chat.completion", "echo")
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (WORDS, WORDS, 2 * WORDS)


async def test_chat_streamed(sdk: Sdk) -> None:
    stream = await sdk.client.chat.completions.create(model="echo", messages=says(), stream=True)
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.content for delta in deltas] == ["The", " quick", " brown", " fox", " jumps", None]
    assert [delta.role for delta in deltas] == ["assistant", None, None, None, None, None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * WORDS + ["stop"]
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", "echo")}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_include_usage_adds_a_last_chunk_without_choices(sdk: Sdk) -> None:
    stream = await sdk.client.chat.completions.create(
        model="echo", messages=says(), stream=True, stream_options={"include_usage": True}
    )
    *tokens, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (WORDS, WORDS)
    assert all(chunk.choices and chunk.usage is None for chunk in tokens)


async def test_completions(sdk: Sdk) -> None:
    answer = await sdk.client.completions.create(model="echo", prompt=PROMPT)
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == (
        "text_completion",
        PROMPT,
        "stop",
    )
    assert answer.id.startswith("cmpl-")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == WORDS


async def test_completions_streamed(sdk: Sdk) -> None:
    stream = await sdk.client.completions.create(model="echo", prompt=PROMPT, stream=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].text for chunk in chunks] == ["The", " quick", " brown", " fox", " jumps", ""]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * WORDS + ["stop"]


async def test_the_engines_finish_reason_comes_through(sdk: Sdk) -> None:
    answer = await sdk.client.chat.completions.create(model="echo", messages=says(), max_completion_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("The quick", "length")


def test_the_synchronous_client(cluster: Cluster) -> None:
    with httpx2.Client(trust_env=False) as http:
        client = openai.OpenAI(base_url=cluster.frontends[1].url + "/v1", api_key="none", http_client=http)
        stream = client.chat.completions.create(model="echo", messages=says(), stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == PROMPT


async def test_models_are_listed_and_retrieved(sdk: Sdk) -> None:
    listed = {model.id: model async for model in sdk.client.models.list()}
    assert {"echo", "raiser", "silent", "single", "brief"} <= listed.keys()
    assert "away" not in listed
    model = await sdk.client.models.retrieve("echo")
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "lifecycle")
    assert model.created == listed["echo"].created > 0
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.client.models.retrieve("no/such model")
    assert caught.value.code == "model_not_found"


# The request id


@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_id_is_the_clients_own_everywhere(cluster: Cluster, sdk: Sdk, rid: str, stream: bool) -> None:
    raw = await sdk.client.chat.completions.with_raw_response.create(
        model="echo", messages=says(), stream=stream, extra_headers={"X-Request-Id": rid}
    )
    assert raw.headers["x-request-id"] == raw.request_id == rid
    parsed = raw.parse()
    ids = {chunk.id async for chunk in parsed} if isinstance(parsed, openai.AsyncStream) else {parsed.id}
    assert ids == {rid}
    assert (await ended(cluster, rid))["status"] == "completed"


async def test_a_generated_request_id_is_the_completions_id(cluster: Cluster, sdk: Sdk) -> None:
    raw = await sdk.client.chat.completions.with_raw_response.create(model="echo", messages=says())
    assert raw.headers["x-request-id"] == raw.parse().id
    assert (await ended(cluster, raw.parse().id))["request_type"] == "unary"


# What goes wrong


async def test_an_unknown_model_is_not_found(sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.client.chat.completions.create(model="nobody-serves-this", messages=says())
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert caught.value.request_id
    assert len(sdk.calls) == 1


async def test_a_wrong_parameter_is_a_bad_request_that_names_it(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.client.chat.completions.create(model="echo", messages=says(), extra_body={"temperature": "hot"})
    assert (caught.value.param, caught.value.type) == ("temperature", "invalid_request_error")
    assert len(sdk.calls) == 1


async def test_a_parameter_that_no_worker_takes_is_a_bad_request(sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await sdk.client.chat.completions.create(model="echo", messages=says(), n=2)
    assert (caught.value.param, caught.value.code) == ("n", "unsupported_parameter")
    assert len(sdk.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reused_request_id_is_a_conflict_and_not_retried(sdk: Sdk, rid: str, stream: bool) -> None:
    named = {"X-Request-Id": rid}
    await sdk.client.chat.completions.create(model="echo", messages=says(), extra_headers=named)
    sdk.calls.clear()
    with pytest.raises(openai.ConflictError) as caught:
        await sdk.client.chat.completions.create(model="echo", messages=says(), stream=stream, extra_headers=named)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(sdk.calls) == 1


async def test_an_engines_error_in_a_stream_is_an_api_error_with_its_words(sdk: Sdk) -> None:
    stream = await sdk.client.chat.completions.create(model="raiser", messages=says("the GPU fell off"), stream=True)
    heard = []
    with pytest.raises(openai.APIError) as caught:
        async for chunk in stream:
            heard.append(chunk.choices[0].delta.content)
    assert heard == ["one", " two", " three"]
    assert (caught.value.message, caught.value.type) == ("the GPU fell off", "internal_server_error")
    assert str(caught.value.code) == "500"


async def test_an_engines_error_in_a_unary_call_is_raised_with_the_frames_type(sdk: Sdk) -> None:
    client = sdk.client.with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="raiser", messages=says("the GPU fell off"))
    assert (caught.value.status_code, caught.value.type) == (500, "internal_server_error")
    assert "the GPU fell off" in caught.value.message


async def test_a_named_request_that_failed_is_not_repeated_under_its_spent_id(sdk: Sdk, rid: str) -> None:
    """The repetition could only be a conflict, which would hide the engine's words."""
    with pytest.raises(openai.InternalServerError, match="the GPU fell off"):
        await sdk.client.chat.completions.create(
            model="raiser", messages=says("the GPU fell off"), extra_headers={"X-Request-Id": rid}
        )
    assert len(sdk.calls) == 1


async def test_a_model_without_a_worker_is_503_with_a_time_to_come_back(sdk: Sdk) -> None:
    client = sdk.client.with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="away", messages=says())
    assert (caught.value.status_code, caught.value.type) == (503, "service_unavailable")
    assert int(caught.value.response.headers["retry-after"]) >= 1


# Cancelling


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancel_by_id_reaches_the_sdk_with_its_reason(
    cluster: Cluster, sdk: Sdk, rid: str, stream: bool
) -> None:
    async def talk() -> None:
        answer = await sdk.client.chat.completions.create(
            model="echo", messages=says(), stream=stream, extra_body=ENDLESS, extra_headers={"X-Request-Id": rid}
        )
        if isinstance(answer, openai.AsyncStream):
            async for _ in answer:
                pass

    talking = asyncio.create_task(talk())
    await until(cluster, rid, "running")
    await cancel(cluster, rid, cluster.frontends[1], reason="the user pressed stop")
    with pytest.raises(openai.APIError, match="the user pressed stop") as caught:
        await talking
    assert caught.value.type == "request_cancelled"
    assert isinstance(caught.value, openai.APIStatusError) is not stream
    if isinstance(caught.value, openai.APIStatusError):
        assert caught.value.status_code == 499
    assert len(sdk.calls) == 1


async def test_closing_the_stream_cancels_the_request(cluster: Cluster, sdk: Sdk) -> None:
    stream = await sdk.client.chat.completions.create(model="echo", messages=says(), stream=True, extra_body=ENDLESS)
    first = await anext(aiter(stream))
    await stream.close()
    record = await ended(cluster, first.id)
    assert (record["status"], record["error_type"], record["cancel_mode"]) == ("cancelled", "cancelled", "kill")
