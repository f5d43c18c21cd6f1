"""OpenAI's Agents SDK, whose default is the Responses API."""

from __future__ import annotations

import asyncio
from typing import Any

import agents
import openai

from tests.clients.programs.cases import API_KEY, HELLO, Weather, case, left, main, model, raised, upstream_is_left

agents.set_tracing_disabled(True)


def weather(city: str, days: int) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city} for {days} days"


def clock(zone: str) -> str:
    """Tell the time in a zone."""
    return f"noon in {zone}"


WEATHER, CLOCK = agents.function_tool(weather), agents.function_tool(clock)


def agent(url: str, name: str, **fields: Any) -> agents.Agent[Any]:
    sdk = openai.AsyncOpenAI(base_url=url, api_key=API_KEY, max_retries=fields.pop("max_retries", 2))
    engine = agents.OpenAIResponsesModel(model(name), sdk)
    return agents.Agent(name="guide", instructions="Be brief.", model=engine, **fields)


def both(result: agents.RunResult | agents.RunResultStreaming, whole: Any = None) -> dict[str, Any]:
    """Return what does not depend on the engine's own API, and what is compared only where it is the same."""
    calls = [item.raw_item for item in result.new_items if isinstance(item, agents.ToolCallItem)]
    outputs = [item.output for item in result.new_items if isinstance(item, agents.ToolCallOutputItem)]
    usage = result.context_wrapper.usage
    plain = {
        "final": result.final_output if isinstance(result.final_output, str) else result.final_output.model_dump(),
        "calls": [[getattr(call, "name", None), getattr(call, "arguments", None)] for call in calls],
        "outputs": outputs,
        "usage": [usage.requests, usage.input_tokens, usage.output_tokens],
    }
    responses = [[item.model_dump(mode="json") for item in response.output] for response in result.raw_responses]
    return {"plain": plain, "whole": [responses, whole]}


async def streamed(url: str, name: str, **fields: Any) -> dict[str, Any]:
    result = agents.Runner.run_streamed(agent(url, name, **fields), HELLO)
    events = [event async for event in result.stream_events()]
    raw = [event.data.model_dump(mode="json") for event in events if event.type == "raw_response_event"]
    return both(result, [raw, [event.type for event in events]])


@case("text")
async def text(url: str) -> Any:
    return both(await agents.Runner.run(agent(url, "text"), HELLO))


@case("streamed text")
async def streamed_text(url: str) -> Any:
    return await streamed(url, "text")


@case("agent with a tool")
async def agent_with_a_tool(url: str) -> Any:
    return both(await agents.Runner.run(agent(url, "agent", tools=[WEATHER]), HELLO))


@case("parallel tool calls")
async def parallel_tool_calls(url: str) -> Any:
    return both(await agents.Runner.run(agent(url, "parallel_agent", tools=[WEATHER, CLOCK]), HELLO))


@case("streamed tool call")
async def streamed_tool_call(url: str) -> Any:
    return await streamed(url, "agent", tools=[WEATHER])


@case("streamed parallel tool calls")
async def streamed_parallel_tool_calls(url: str) -> Any:
    return await streamed(url, "parallel_agent", tools=[WEATHER, CLOCK])


@case("structured output")
async def structured_output(url: str) -> Any:
    return both(await agents.Runner.run(agent(url, "structured", output_type=Weather), HELLO))


@case("reasoning")
async def reasoning(url: str) -> Any:
    settings = agents.ModelSettings(reasoning={"summary": "auto"})
    return await streamed(url, "reasoning", model_settings=settings)


@case("context overflow")
async def context_overflow(url: str) -> Any:
    try:
        await agents.Runner.run(agent(url, "context_overflow"), HELLO)
    except openai.BadRequestError as error:
        return {"plain": raised(error, "type", "code", "status_code")}
    return None


@case("rate limit")
async def rate_limit(url: str) -> Any:
    try:
        await agents.Runner.run(agent(url, "rate_limit", max_retries=0), HELLO)
    except openai.RateLimitError as error:
        return {"plain": raised(error, "type", "code", "status_code")}
    return None


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    result = agents.Runner.run_streamed(agent(url, "endless"), HELLO)
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text = text or event.data.delta
            result.cancel()
    return {"plain": [text, await asyncio.to_thread(upstream_is_left, before)]}


if __name__ == "__main__":
    main()
