"""Agents of pydantic-ai."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
from pydantic_ai import Agent, ModelHTTPError, NativeOutput
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.programs.cases import API_KEY, HELLO, Weather, case, left, main, raised, upstream_is_left


def model(url: str, name: str, **options: Any) -> OpenAIChatModel:
    sdk = openai.AsyncOpenAI(base_url=url, api_key=API_KEY, **options)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=sdk))


def weather(city: str, days: int) -> str:
    """Tell the weather of a city for some days."""
    return f"sunny in {city} for {days} days"


def clock(zone: str) -> str:
    """Tell the time in a zone."""
    return f"noon in {zone}"


async def messages(run: Any) -> Any:
    """Return all messages of a run, its output and its usage."""
    return json.loads(run.all_messages_json()), str(run.output), str(run.usage)


def failure(error: ModelHTTPError) -> Any:
    """Return the error with the fields that OpenAI's errors have."""
    assert isinstance(error.body, dict)
    body = {name: error.body.get(name) for name in ("message", "type", "code", "param")}
    return raised(error, "status_code"), body


@case("text")
async def text(url: str) -> Any:
    return await messages(await Agent(model(url, "llama_text")).run(HELLO))


@case("streamed text")
async def streamed_text(url: str) -> Any:
    async with Agent(model(url, "llama_text")).run_stream(HELLO) as run:
        return [part async for part in run.stream_text(delta=True, debounce_by=None)]


@case("usage of a stream")
async def usage(url: str) -> Any:
    async with Agent(model(url, "llama_text")).run_stream(HELLO) as run:
        await run.get_output()
        return str(run.usage)


@case("agent with a tool")
async def agent(url: str) -> Any:
    return await messages(await Agent(model(url, "agent"), tools=[weather, clock]).run(HELLO))


@case("streamed tool call")
async def streamed_tool_call(url: str) -> Any:
    async with Agent(model(url, "agent"), tools=[weather, clock]).run_stream(HELLO) as run:
        text = await run.get_output()
        return text, json.loads(run.all_messages_json())


@case("structured output")
async def structured_output(url: str) -> Any:
    native = await Agent(model(url, "llama_structured"), output_type=NativeOutput(Weather)).run(HELLO)
    assert isinstance(native.output, Weather)
    return await messages(native)


@case("streamed structured output")
async def streamed_structured_output(url: str) -> Any:
    agent = Agent(model(url, "llama_structured"), output_type=NativeOutput(Weather))
    async with agent.run_stream(HELLO) as run:
        return [output.model_dump() async for output in run.stream_output(debounce_by=None)]


@case("parallel tool calls")
async def parallel_tool_calls(url: str) -> Any:
    return await messages(await Agent(model(url, "parallel_agent"), tools=[weather, clock]).run(HELLO))


@case("streamed parallel tool calls")
async def streamed_parallel_tool_calls(url: str) -> Any:
    async with Agent(model(url, "parallel_agent"), tools=[weather, clock]).run_stream(HELLO) as run:
        text = await run.get_output()
        return text, json.loads(run.all_messages_json())


@case("reasoning")
async def reasoning(url: str) -> Any:
    """The recorded answer has nothing but reasoning, which is not an output."""
    try:
        return await messages(await Agent(model(url, "vllm_reasoning"), retries=0).run(HELLO))
    except UnexpectedModelBehavior as error:
        return raised(error, "message")


@case("context overflow")
async def context_overflow(url: str) -> Any:
    """Without retries switched off: an error that no repetition can mend must not be repeated."""
    try:
        return await messages(await Agent(model(url, "context_overflow")).run(HELLO))
    except ModelHTTPError as error:
        return [failure(error)]


@case("rate limit")
async def rate_limit(url: str) -> Any:
    try:
        return await messages(await Agent(model(url, "rate_limit", max_retries=0)).run(HELLO))
    except ModelHTTPError as error:
        return failure(error)


@case("error in a stream")
async def error_in_a_stream(url: str) -> Any:
    text = ""
    try:
        async with Agent(model(url, "broken")).run_stream(HELLO) as run:
            async for part in run.stream_text(delta=True, debounce_by=None):
                text += part
    except ModelHTTPError as error:
        return text, failure(error)
    return text


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    async with Agent(model(url, "endless")).run_stream(HELLO) as run:
        async for part in run.stream_text(delta=True, debounce_by=None):
            text += part
            if len(text) >= 3:
                break
        await run.cancel()
        return text, await asyncio.to_thread(upstream_is_left, before)


if __name__ == "__main__":
    main()
