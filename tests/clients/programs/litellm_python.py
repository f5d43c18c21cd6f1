"""The library LiteLLM, as a client of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import openai

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

litellm.suppress_debug_info = True  # otherwise it prints advice
TOOLS = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
MESSAGES = [{"role": "user", "content": HELLO}]


def complete(url: str, model: str, **call: Any) -> Any:
    """Return what the library returns: a response, or the iterator of a stream."""
    call = {"messages": MESSAGES, **call}
    return litellm.completion(model=f"openai/{model}", api_base=url, api_key=API_KEY, **call)


def unary(url: str, model: str, **call: Any) -> Any:
    return complete(url, model, **call).model_dump(mode="json")


def streamed(url: str, model: str, **call: Any) -> Any:
    return [chunk.model_dump(mode="json") for chunk in complete(url, model, stream=True, **call)]


@case("text")
def text(url: str) -> Any:
    return unary(url, "llama_text")


@case("streamed text")
def streamed_text(url: str) -> Any:
    return streamed(url, "llama_text")


@case("usage of a stream")
def usage(url: str) -> Any:
    chunks = streamed(url, "llama_text", stream_options={"include_usage": True})
    return [chunk["usage"] for chunk in chunks if chunk.get("usage")]


@case("tool call")
def tool_call(url: str) -> Any:
    return unary(url, "llama_one_tool", tools=TOOLS, tool_choice="required")


@case("streamed tool call")
def streamed_tool_call(url: str) -> Any:
    return [streamed(url, model, tools=TOOLS) for model in ("llama_one_tool", "vllm_tools_required")]


@case("parallel tool calls")
def parallel_tool_calls(url: str) -> Any:
    return unary(url, "llama_parallel_tools", tools=TOOLS, parallel_tool_calls=True)


@case("streamed parallel tool calls")
def streamed_parallel_tool_calls(url: str) -> Any:
    """The library builds one response out of the chunks."""
    chunks = list(complete(url, "llama_parallel_tools", tools=TOOLS, stream=True))
    built = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    return built.model_dump(mode="json")


@case("agent with a tool")
def agent(url: str) -> Any:
    messages: list[Any] = list(MESSAGES)
    for _ in range(3):
        message = complete(url, "agent", messages=messages, tools=TOOLS).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    return None


@case("structured output")
def structured_output(url: str) -> Any:
    answer = complete(url, "llama_structured", response_format=Weather)
    return Weather.model_validate_json(answer.choices[0].message.content).model_dump()


@case("log probabilities")
def log_probabilities(url: str) -> Any:
    wanted = {"logprobs": True, "top_logprobs": 2}
    return unary(url, "llama_logprobs", **wanted), streamed(url, "llama_logprobs", **wanted)


@case("two choices")
def two_choices(url: str) -> Any:
    return unary(url, "vllm_n2_logprobs", n=2), streamed(url, "vllm_n2_logprobs", n=2)


@case("reasoning")
def reasoning(url: str) -> Any:
    return unary(url, "vllm_reasoning"), streamed(url, "vllm_reasoning")


@case("all recorded streams")
def all_recorded_streams(url: str) -> Any:
    return [streamed(url, name, n=choices_of(name)) for name in RECORDINGS]


@case("context overflow")
def context_overflow(url: str) -> Any:
    """Without retries switched off: an error that no repetition can mend must not be repeated."""
    errors = []
    for ask in (unary, streamed):
        try:
            ask(url, "context_overflow")
        except litellm.BadRequestError as error:
            errors.append(raised(error, "message", "status_code"))
    return errors


@case("rate limit")
def rate_limit(url: str) -> Any:
    try:
        return unary(url, "rate_limit", max_retries=0)
    except litellm.RateLimitError as error:
        return raised(error, "message", "status_code")


@case("error in a stream")
def error_in_a_stream(url: str) -> Any:
    text = ""
    try:
        for chunk in complete(url, "broken", stream=True):
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        return text, raised(error, "message")
    return text


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    stream = await litellm.acompletion(
        model="openai/endless", api_base=url, api_key=API_KEY, messages=MESSAGES, stream=True
    )
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if len(text) == 3:
            break
    await stream.aclose()
    return text, await asyncio.to_thread(upstream_is_left, before)


if __name__ == "__main__":
    main()
