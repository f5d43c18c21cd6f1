"""The package `openai` for Python at the Responses API."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from openai.types.responses import Response, ResponseInputParam
from pydantic import BaseModel

from tests.clients.programs.cases import (
    API_KEY,
    HELLO,
    Clock,
    Weather,
    case,
    elsewhere,
    left,
    main,
    model,
    raised,
    upstream_is_left,
)

INPUT: ResponseInputParam = [{"role": "user", "content": HELLO}]


def function(kind: type[BaseModel]) -> Any:
    tool = openai.pydantic_function_tool(kind, name=kind.__name__.lower())["function"]
    return {"type": "function", **tool}


TOOLS = [function(Weather), function(Clock)]


def client(url: str, max_retries: int = 2) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=max_retries)


def create(url: str, name: str, **call: Any) -> Any:
    return client(url).responses.create(**{"model": model(name), "input": INPUT, **call})


def fields(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json")


def plain(response: Response) -> dict[str, Any]:
    """Return what does not depend on the engine's own API. All other fields are compared where it is the same."""
    usage = response.usage
    return {
        "text": response.output_text,
        "calls": [[item.name, item.arguments] for item in response.output if item.type == "function_call"],
        "status": response.status,
        "usage": usage and [usage.input_tokens, usage.output_tokens, usage.total_tokens],
    }


def both(response: Response) -> dict[str, Any]:
    return {"plain": plain(response), "whole": fields(response)}


def streamed(url: str, name: str, **call: Any) -> dict[str, Any]:
    events = list(create(url, name, stream=True, **call))
    return {"plain": plain(events[-1].response), "whole": [fields(event) for event in events]}


@case("text")
def text(url: str) -> Any:
    return both(create(url, "text", instructions="Be brief.", temperature=0.5))


@case("streamed text")
def streamed_text(url: str) -> Any:
    return streamed(url, "text")


@case("tool call")
def tool_call(url: str) -> Any:
    return both(create(url, "tool", tools=TOOLS, tool_choice="required"))


@case("streamed tool call")
def streamed_tool_call(url: str) -> Any:
    return streamed(url, "tool", tools=TOOLS)


@case("parallel tool calls")
def parallel_tool_calls(url: str) -> Any:
    return both(create(url, "parallel_tools", tools=TOOLS, parallel_tool_calls=True))


@case("streamed parallel tool calls")
def streamed_parallel_tool_calls(url: str) -> Any:
    """The stream helper accumulates the events."""
    with client(url).responses.stream(model=model("parallel_tools"), input=INPUT, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    return {"plain": plain(response), "whole": [kinds, fields(response)]}


@case("agent with a tool")
def agent(url: str) -> Any:
    items: list[Any] = list(INPUT)
    for turn in range(3):
        response = create(url, "parallel_agent", input=items, tools=TOOLS)
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return {"plain": [turn, response.output_text], "whole": fields(response)}
        items += response.output
        items += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    return None


@case("conversation")
def conversation(url: str) -> Any:
    first = create(url, "text")
    items = [*INPUT, *first.output, {"role": "user", "content": "Go on."}]
    return both(create(url, "text", input=items, store=False))


@case("conversation by item ids")
def conversation_by_item_ids(url: str) -> Any:
    first = create(url, "text")
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    return both(create(url, "text", input=[*INPUT, *references, {"role": "user", "content": "Go on."}]))


@case("structured output")
def structured_output(url: str) -> Any:
    response = client(url).responses.parse(model=model("structured"), input=INPUT, text_format=Weather)
    assert isinstance(response.output_parsed, Weather)
    return {"plain": fields(response.output_parsed), "whole": fields(response)}


@case("streamed structured output")
def streamed_structured_output(url: str) -> Any:
    with client(url).responses.stream(model=model("structured"), input=INPUT, text_format=Weather) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert isinstance(response.output_parsed, Weather)
    return {"plain": fields(response.output_parsed), "whole": kinds}


@case("reasoning")
def reasoning(url: str) -> Any:
    return streamed(url, "reasoning", reasoning={"summary": "auto"})


@case("context overflow")
def context_overflow(url: str) -> Any:
    errors = []
    for stream in (False, True):
        try:
            create(url, "context_overflow", stream=stream)
        except openai.BadRequestError as error:
            errors.append({"plain": raised(error, "type", "code", "status_code")})
    return errors


@case("rate limit")
def rate_limit(url: str) -> Any:
    try:
        client(url, max_retries=0).responses.create(model=model("rate_limit"), input=INPUT)
    except openai.RateLimitError as error:
        return {"plain": raised(error, "type", "code", "status_code")}
    return None


@case("error in a stream")
def error_in_a_stream(url: str) -> Any:
    events = list(create(url, "broken", stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    return {"plain": [text[:6], events[-1].type, events[-1].response.error.message]}


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    async with openai.AsyncOpenAI(base_url=url, api_key=API_KEY) as sdk:
        stream = await sdk.responses.create(model=model("endless"), input=INPUT, stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                text = event.delta
                break
        await stream.close()
        return {"plain": [text, await asyncio.to_thread(upstream_is_left, before)]}


@case("background, resumed elsewhere")
def background(url: str) -> Any:
    other = elsewhere(url)
    if not other:
        return None
    events: list[Any] = []
    for event in create(url, "text", background=True, stream=True):
        events.append(event)
        if event.type == "response.output_text.delta":
            break
    rid, position = events[0].response.id, events[-1].sequence_number
    events += client(other).responses.retrieve(rid, stream=True, starting_after=position)
    again = list(client(url).responses.retrieve(rid, stream=True))
    return {
        "plain": {
            "numbered": [event.sequence_number for event in events] == list(range(len(events))),
            "repeated": again == events,
            **plain(client(other).responses.retrieve(rid)),
        }
    }


@case("background, cancelled elsewhere")
def cancelled(url: str) -> Any:
    other = elsewhere(url)
    if not other:
        return None
    before = left()
    response = create(url, "endless", background=True)
    for event in client(url).responses.retrieve(response.id, stream=True):
        if event.type == "response.output_text.delta":
            break
    ended = client(other).responses.cancel(response.id)
    now = client(url).responses.retrieve(response.id)
    return {"plain": [response.status, ended.status, now.status, upstream_is_left(before)]}


@case("previous response")
def previous_response(url: str) -> Any:
    other = elsewhere(url)
    if not other:
        return None
    first = create(url, "agent", tools=TOOLS)
    call: Any = client(other).responses.retrieve(first.id).output[-1]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    following = create(other, "agent", previous_response_id=first.id, input=[result])
    items = client(url).responses.input_items.list(following.id, order="asc")
    client(url).responses.delete(first.id)
    return {"plain": [following.output_text, [item.type for item in items]]}


if __name__ == "__main__":
    main()
