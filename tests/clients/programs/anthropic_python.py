"""The package `anthropic` for Python."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
from anthropic.types import Message
from pydantic import BaseModel

from tests.clients.programs.cases import (
    API_KEY,
    HELLO,
    Clock,
    Weather,
    case,
    left,
    main,
    model,
    raised,
    upstream_is_left,
)

MESSAGES = [{"role": "user", "content": HELLO}]
TOOLS = [
    {"name": kind.__name__.lower(), "description": str(kind.__doc__), "input_schema": kind.model_json_schema()}
    for kind in (Weather, Clock)
]


def client(url: str, max_retries: int = 2) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=API_KEY, max_retries=max_retries)


def call(name: str, **more: Any) -> dict[str, Any]:
    return {"model": model(name), "max_tokens": 256, "messages": MESSAGES, **more}


def create(url: str, name: str, **more: Any) -> Any:
    return client(url).messages.create(**call(name, **more))


def fields(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json")


def plain(message: Message) -> dict[str, Any]:
    """Return what does not depend on the engine's own API. All other fields are compared where it is the same."""
    return {
        "text": [block.text for block in message.content if block.type == "text"],
        "thinking": [block.thinking for block in message.content if block.type == "thinking"],
        "calls": [[block.name, block.input] for block in message.content if block.type == "tool_use"],
        "stop_reason": message.stop_reason,
        "usage": message.usage.output_tokens,
    }


def both(message: Message) -> dict[str, Any]:
    return {"plain": plain(message), "whole": fields(message)}


def streamed(url: str, name: str, **more: Any) -> dict[str, Any]:
    """Return the events as they come, and as the stream helper accumulates them."""
    raw = [fields(event) for event in create(url, name, stream=True, **more)]
    with client(url).messages.stream(**call(name, **more)) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    return {"plain": plain(message), "whole": [raw, kinds]}


@case("text")
def text(url: str) -> Any:
    return both(create(url, "text", system="Be brief.", stop_sequences=["never"]))


@case("streamed text")
def streamed_text(url: str) -> Any:
    return streamed(url, "text")


@case("tool call")
def tool_call(url: str) -> Any:
    return both(create(url, "tool", tools=TOOLS, tool_choice={"type": "any"}))


@case("streamed tool call")
def streamed_tool_call(url: str) -> Any:
    return streamed(url, "tool", tools=TOOLS)


@case("parallel tool calls")
def parallel_tool_calls(url: str) -> Any:
    return both(create(url, "parallel_tools", tools=TOOLS))


@case("streamed parallel tool calls")
def streamed_parallel_tool_calls(url: str) -> Any:
    return streamed(url, "parallel_tools", tools=TOOLS)


@case("agent with a tool")
def agent(url: str) -> Any:
    turns: list[Any] = list(MESSAGES)
    for turn in range(3):
        message = create(url, "parallel_agent", messages=turns, tools=TOOLS)
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return {"plain": [turn, plain(message)], "whole": fields(message)}
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"} for block in calls]
        turns += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    return None


@case("reasoning")
def reasoning(url: str) -> Any:
    return streamed(url, "reasoning", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)


@case("context overflow")
def context_overflow(url: str) -> Any:
    errors = []
    for stream in (False, True):
        try:
            create(url, "context_overflow", stream=stream)
        except anthropic.BadRequestError as error:
            errors.append({"plain": raised(error, "body", "status_code")})
    return errors


@case("rate limit")
def rate_limit(url: str) -> Any:
    try:
        client(url, max_retries=0).messages.create(**call("rate_limit"))
    except anthropic.RateLimitError as error:
        return {"plain": raised(error, "body", "status_code")}
    return None


@case("error in a stream")
def error_in_a_stream(url: str) -> Any:
    text = ""
    try:
        for event in create(url, "broken", stream=True):
            text += getattr(getattr(event, "delta", None), "text", "")
    except anthropic.APIError as error:
        body: Any = error.body
        return {"plain": [text[:6], body["error"]["message"]]}
    return None


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    async with anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=API_KEY) as sdk:
        arguments: Any = call("endless", stream=True)
        stream = await sdk.messages.create(**arguments)
        async for event in stream:
            text = getattr(getattr(event, "delta", None), "text", "")
            if text:
                break
        await stream.close()
        return {"plain": [text, await asyncio.to_thread(upstream_is_left, before)]}


if __name__ == "__main__":
    main()
