"""The package `openai` for Python."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

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

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": HELLO}]
TOOLS = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]


def client(url: str, max_retries: int = 2) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=max_retries)


def fields(answer: BaseModel) -> dict[str, Any]:
    return answer.model_dump(mode="json")


def unary(url: str, model: str, **call: Any) -> dict[str, Any]:
    return fields(client(url).chat.completions.create(model=model, messages=MESSAGES, **call))


def streamed(url: str, model: str, **call: Any) -> list[dict[str, Any]]:
    stream = client(url).chat.completions.create(model=model, messages=MESSAGES, stream=True, **call)
    return [fields(chunk) for chunk in stream]


@case("text")
def text(url: str) -> Any:
    return unary(url, "llama_text")


@case("streamed text")
def streamed_text(url: str) -> Any:
    return streamed(url, "llama_text")


@case("usage of a stream")
def usage(url: str) -> Any:
    models = "llama_text", "vllm_interval10", "vllm_reasoning"
    return [streamed(url, model, stream_options={"include_usage": True}) for model in models]


@case("usage in every chunk")
def continuous_usage(url: str) -> Any:
    """An option of vLLM."""
    chunks = streamed(
        url, "vllm_n2_logprobs", n=2, stream_options={"include_usage": True, "continuous_usage_stats": True}
    )
    return [chunk["usage"] for chunk in chunks]


@case("tool call")
def tool_call(url: str) -> Any:
    return unary(url, "llama_one_tool", tools=TOOLS, tool_choice="required")


@case("streamed tool call")
def streamed_tool_call(url: str) -> Any:
    models = "llama_one_tool", "vllm_tools_required", "vllm_tools_named", "llama_tools_required"
    return [streamed(url, model, tools=TOOLS, tool_choice="required") for model in models]


@case("parallel tool calls")
def parallel_tool_calls(url: str) -> Any:
    return unary(url, "llama_parallel_tools", tools=TOOLS, parallel_tool_calls=True)


@case("streamed parallel tool calls")
def streamed_parallel_tool_calls(url: str) -> Any:
    """The stream helper accumulates the calls, and parses their arguments."""
    with client(url).chat.completions.stream(model="llama_parallel_tools", messages=MESSAGES, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        return kinds, fields(stream.get_final_completion())


@case("agent with a tool")
def agent(url: str) -> Any:
    messages: list[Any] = list(MESSAGES)
    for _ in range(3):
        answer = client(url).chat.completions.create(model="agent", messages=messages, tools=TOOLS)
        message = answer.choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    return None


@case("structured output")
def structured_output(url: str) -> Any:
    completion = client(url).chat.completions.parse(
        model="llama_structured", messages=MESSAGES, response_format=Weather
    )
    parsed = completion.choices[0].message.parsed
    assert isinstance(parsed, Weather)
    return fields(completion)


@case("streamed structured output")
def streamed_structured_output(url: str) -> Any:
    with client(url).chat.completions.stream(
        model="llama_structured", messages=MESSAGES, response_format=Weather
    ) as stream:
        kinds = [event.type for event in stream]
        return kinds, fields(stream.get_final_completion())


@case("log probabilities")
def log_probabilities(url: str) -> Any:
    wanted = {"logprobs": True, "top_logprobs": 2}
    text = client(url).completions.create(model="vllm_completions_echo_logprobs", prompt=HELLO, echo=True, logprobs=1)
    return [unary(url, "llama_logprobs", **wanted), streamed(url, "llama_logprobs", **wanted), fields(text)]


@case("two choices")
def two_choices(url: str) -> Any:
    wanted = {"n": 2, "logprobs": True}
    streams = [streamed(url, model, **wanted) for model in ("vllm_n2_logprobs", "llama_n2_logprobs")]
    return [unary(url, "vllm_n2_logprobs", **wanted), *streams]


@case("reasoning")
def reasoning(url: str) -> Any:
    return [unary(url, "vllm_reasoning"), streamed(url, "vllm_reasoning")]


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
        except openai.BadRequestError as error:
            errors.append(raised(error, "message", "type", "code", "param", "status_code"))
    return errors


@case("rate limit")
def rate_limit(url: str) -> Any:
    errors = []
    for stream in (False, True):
        try:
            client(url, max_retries=0).chat.completions.create(model="rate_limit", messages=MESSAGES, stream=stream)
        except openai.RateLimitError as error:
            found = raised(error, "message", "type", "code", "param", "status_code")
            errors.append(found | {"retry-after": error.response.headers["retry-after"]})
    return errors


@case("error in a stream")
def error_in_a_stream(url: str) -> Any:
    stream = client(url).chat.completions.create(model="broken", messages=MESSAGES, stream=True)
    text = ""
    try:
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        return text, raised(error, "message", "type", "code", "param")
    return text


@case("abort")
async def abort(url: str) -> Any:
    before, text = left(), ""
    async with openai.AsyncOpenAI(base_url=url, api_key=API_KEY) as sdk:
        stream = await sdk.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            if len(text) == 3:
                break
        await stream.close()
        return text, await asyncio.to_thread(upstream_is_left, before)


if __name__ == "__main__":
    main()
