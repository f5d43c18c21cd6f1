// The package `openai` for JavaScript.

import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";

import { apiKey, choicesOf, Clock, collect, hello, left, main, recordings, upstreamIsLeft, Weather } from "./cases.mjs";

const messages = [{ role: "user", content: hello }];
const tools = [zodFunction({ name: "weather", parameters: Weather }), zodFunction({ name: "clock", parameters: Clock })];
const client = (baseURL, options = {}) => new OpenAI({ baseURL, apiKey, ...options });
const unary = (url, model, call = {}) => client(url).chat.completions.create({ model, messages, ...call });
const streamed = async (url, model, call = {}) =>
  collect(await client(url).chat.completions.create({ model, messages, stream: true, ...call }));
const raised = (error) => ({
  raised: error.constructor.name,
  message: error.message,
  status: error.status,
  type: error.type,
  code: error.code,
  param: error.param,
});

await main({
  "text": (url) => unary(url, "llama_text"),
  "streamed text": (url) => streamed(url, "llama_text"),
  "usage of a stream": async (url) => {
    const chunks = await streamed(url, "llama_text", { stream_options: { include_usage: true } });
    return chunks.map((chunk) => chunk.usage).filter(Boolean);
  },
  "tool call": (url) => unary(url, "llama_one_tool", { tools, tool_choice: "required" }),
  "streamed tool call": async (url) => [
    await streamed(url, "llama_one_tool", { tools }),
    await streamed(url, "vllm_tools_required", { tools }),
  ],
  "parallel tool calls": (url) => unary(url, "llama_parallel_tools", { tools, parallel_tool_calls: true }),
  "streamed parallel tool calls": (url) =>
    client(url).chat.completions.stream({ model: "llama_parallel_tools", messages, tools }).finalChatCompletion(),
  "agent with a tool": async (url) => {
    const run = client(url).chat.completions.runTools({
      model: "agent",
      messages,
      tools: [
        zodFunction({ name: "weather", parameters: Weather, function: ({ city }) => `sunny in ${city}` }),
        zodFunction({ name: "clock", parameters: Clock, function: ({ zone }) => `noon in ${zone}` }),
      ],
    });
    return [await run.finalContent(), run.messages];
  },
  "structured output": (url) =>
    client(url).chat.completions.parse({
      model: "llama_structured",
      messages,
      response_format: zodResponseFormat(Weather, "weather"),
    }),
  "streamed structured output": (url) =>
    client(url)
      .chat.completions.stream({
        model: "llama_structured",
        messages,
        response_format: zodResponseFormat(Weather, "weather"),
      })
      .finalChatCompletion(),
  "log probabilities": async (url) => [
    await unary(url, "llama_logprobs", { logprobs: true, top_logprobs: 2 }),
    await streamed(url, "llama_logprobs", { logprobs: true, top_logprobs: 2 }),
  ],
  "two choices": async (url) => [
    await unary(url, "vllm_n2_logprobs", { n: 2 }),
    await streamed(url, "vllm_n2_logprobs", { n: 2 }),
  ],
  "reasoning": async (url) => [await unary(url, "vllm_reasoning"), await streamed(url, "vllm_reasoning")],
  "all recorded streams": async (url) => {
    const found = [];
    for (const name of recordings) found.push(await streamed(url, name, { n: choicesOf(name) }));
    return found;
  },
  "context overflow": async (url) => {
    // Without retries switched off: an error that no repetition can mend must not be repeated.
    const errors = [];
    for (const ask of [unary, streamed]) {
      try {
        await ask(url, "context_overflow");
      } catch (error) {
        if (!(error instanceof OpenAI.BadRequestError)) throw error;
        errors.push(raised(error));
      }
    }
    return errors;
  },
  "rate limit": async (url) => {
    try {
      return await client(url, { maxRetries: 0 }).chat.completions.create({ model: "rate_limit", messages });
    } catch (error) {
      if (!(error instanceof OpenAI.RateLimitError)) throw error;
      return [raised(error), error.headers.get("retry-after")];
    }
  },
  "error in a stream": async (url) => {
    const stream = await client(url).chat.completions.create({ model: "broken", messages, stream: true });
    let text = "";
    try {
      for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    } catch (error) {
      if (!(error instanceof OpenAI.APIError)) throw error;
      return [text, raised(error)];
    }
    return text;
  },
  "abort": async (url) => {
    const before = await left();
    const stream = await client(url).chat.completions.create({ model: "endless", messages, stream: true });
    let text = "";
    for await (const chunk of stream) {
      text += chunk.choices[0].delta.content ?? "";
      if (text.length === 3) stream.controller.abort();
    }
    return [text, await upstreamIsLeft(before)];
  },
});
