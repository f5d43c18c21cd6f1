"""LangChain's `ChatOpenAI`."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.clients.programs.cases import (
    API_KEY,
    HELLO,
    RECORDINGS,
    Clock,
    Weather,
    case,
    choices_of,
    left,
    main,
    raised,
    upstream_is_left,
)

TOOLS = [Weather, Clock]


def chat(url: str, model: str, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key=API_KEY, model=model, **options)


def fields(message: BaseMessage) -> Any:
    return message.model_dump(mode="json")


@case("text")
def text(url: str) -> Any:
    return fields(chat(url, "llama_text").invoke(HELLO))


@case("streamed text")
def streamed_text(url: str) -> Any:
    return [fields(chunk) for chunk in chat(url, "llama_text").stream(HELLO)]


@case("usage of a stream")
def usage(url: str) -> Any:
    chunks = list(chat(url, "llama_text", stream_usage=True).stream(HELLO))
    return [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]


@case("tool call")
def tool_call(url: str) -> Any:
    return fields(chat(url, "llama_one_tool").bind_tools(TOOLS, tool_choice="required").invoke(HELLO))


@case("streamed tool call")
def streamed_tool_call(url: str) -> Any:
    models = "llama_one_tool", "vllm_tools_required"
    return [[fields(c) for c in chat(url, model).bind_tools(TOOLS).stream(HELLO)] for model in models]


@case("parallel tool calls")
def parallel_tool_calls(url: str) -> Any:
    return fields(chat(url, "llama_parallel_tools").bind_tools(TOOLS, parallel_tool_calls=True).invoke(HELLO))


@case("streamed parallel tool calls")
def streamed_parallel_tool_calls(url: str) -> Any:
    """The sum of the chunks has the calls with their arguments parsed."""
    first, *chunks = chat(url, "llama_parallel_tools").bind_tools(TOOLS).stream(HELLO)
    for chunk in chunks:
        first += chunk
    return fields(first)


@case("agent with a tool")
def agent(url: str) -> Any:
    model = chat(url, "agent").bind_tools(TOOLS)
    messages: list[BaseMessage] = [HumanMessage(HELLO)]
    for _ in range(3):
        answer = model.invoke(messages)
        assert isinstance(answer, AIMessage)
        if not answer.tool_calls:
            break
        messages += [answer, *(ToolMessage("sunny", tool_call_id=call["id"]) for call in answer.tool_calls)]
    return [fields(message) for message in messages], answer.content


@case("structured output")
def structured_output(url: str) -> Any:
    found = chat(url, "llama_structured").with_structured_output(Weather, include_raw=True).invoke(HELLO)
    assert isinstance(found["parsed"], Weather), found
    return fields(found["raw"])


@case("streamed structured output")
def streamed_structured_output(url: str) -> Any:
    model = chat(url, "llama_structured").with_structured_output(Weather)
    return [part.model_dump(mode="json") for part in model.stream(HELLO)]


@case("log probabilities")
def log_probabilities(url: str) -> Any:
    return fields(chat(url, "llama_logprobs", logprobs=True, top_logprobs=2).invoke(HELLO))


@case("two choices")
def two_choices(url: str) -> Any:
    result = chat(url, "vllm_n2_logprobs", n=2).generate([[HumanMessage(HELLO)]])
    return [choice.model_dump(mode="json") for choice in result.generations[0]], result.llm_output


@case("reasoning")
def reasoning(url: str) -> Any:
    """The class drops the reasoning; vendors' own classes keep it."""
    model = chat(url, "vllm_reasoning")
    return fields(model.invoke(HELLO)), [fields(chunk) for chunk in model.stream(HELLO)]


@case("all recorded streams")
def all_recorded_streams(url: str) -> Any:
    return [[fields(c) for c in chat(url, name, n=choices_of(name)).stream(HELLO)] for name in RECORDINGS]


@case("context overflow")
def context_overflow(url: str) -> Any:
    """Without retries switched off: an error that no repetition can mend must not be repeated."""
    model = chat(url, "context_overflow")
    errors = []
    for ask in (model.invoke, lambda prompt: list(model.stream(prompt))):
        try:
            ask(HELLO)
        except openai.BadRequestError as error:
            errors.append(raised(error, "message", "type", "code", "status_code"))
    return errors


@case("rate limit")
def rate_limit(url: str) -> Any:
    try:
        return fields(chat(url, "rate_limit", max_retries=0).invoke(HELLO))
    except openai.RateLimitError as error:
        return raised(error, "message", "type", "code", "status_code")


@case("error in a stream")
def error_in_a_stream(url: str) -> Any:
    text = ""
    try:
        for chunk in chat(url, "broken").stream(HELLO):
            text += str(chunk.content)
    except openai.APIError as error:
        return text, raised(error, "message", "type", "code", "param")
    return text


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    stream = chat(url, "endless").astream(HELLO)
    async for chunk in stream:
        text += str(chunk.content)
        if len(text) == 3:
            break
    await stream.aclose()
    return text, await asyncio.to_thread(upstream_is_left, before)


if __name__ == "__main__":
    main()
