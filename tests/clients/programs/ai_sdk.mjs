// The AI SDK with its provider for OpenAI-compatible servers.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";

import { apiKey, choicesOf, Clock, collect, hello as prompt, left, main, recordings, upstreamIsLeft, Weather } from "./cases.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const tools = {
  weather: tool({ inputSchema: Weather, execute: async ({ city }) => `sunny in ${city}` }),
  clock: tool({ inputSchema: Clock, execute: async ({ zone }) => `noon in ${zone}` }),
};
const provider = (baseURL, includeUsage = true) =>
  createOpenAICompatible({ name: "engine", baseURL, apiKey, includeUsage, supportsStructuredOutputs: true });
const ofEachCall = new Set(["id", "request", "headers", "timestamp", "performance", "callId"]);

// Without ids, headers and times.
const plain = (value) => JSON.parse(JSON.stringify(value, (name, inner) => (ofEachCall.has(name) ? undefined : inner)));
const generated = (result) => plain([result.text, result.finishReason, result.usage, result.steps.map((s) => s.content)]);
const raised = (error) => ({
  raised: error.name,
  message: error.message,
  status: error.statusCode,
  isRetryable: error.isRetryable,
  type: error.data?.error.type,
});

async function parts(result) {
  const found = await collect(result.fullStream);
  return [plain(found), await result.finishReason, await result.usage];
}

async function failure(run) {
  try {
    return await run();
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    return raised(error);
  }
}

const stopWhen = stepCountIs(3);
await main({
  "text": async (url) => generated(await generateText({ model: provider(url)("llama_text"), prompt })),
  "streamed text": async (url) => parts(streamText({ model: provider(url)("llama_text"), prompt })),
  "usage of a stream": async (url) => {
    const result = streamText({ model: provider(url)("llama_text"), prompt });
    await result.consumeStream();
    return result.totalUsage;
  },
  "tool call": async (url) => generated(await generateText({ model: provider(url)("llama_one_tool"), prompt, tools })),
  "streamed tool call": async (url) => parts(streamText({ model: provider(url)("llama_one_tool"), prompt, tools })),
  "parallel tool calls": async (url) =>
    generated(await generateText({ model: provider(url)("parallel_agent"), prompt, tools, stopWhen })),
  "streamed parallel tool calls": async (url) =>
    parts(streamText({ model: provider(url)("parallel_agent"), prompt, tools, stopWhen })),
  "agent with a tool": async (url) => {
    const result = streamText({ model: provider(url)("agent"), prompt, tools, stopWhen });
    return [await result.text, plain(await result.steps).length];
  },
  "structured output": async (url) =>
    (await generateObject({ model: provider(url)("llama_structured"), prompt, schema: Weather })).object,
  "streamed structured output": async (url) => {
    const result = streamObject({ model: provider(url)("llama_structured"), prompt, schema: Weather });
    return [await collect(result.partialObjectStream), await result.object];
  },
  "reasoning": async (url) => [
    generated(await generateText({ model: provider(url)("vllm_reasoning"), prompt })),
    await parts(streamText({ model: provider(url)("vllm_reasoning"), prompt })),
  ],
  "all recorded streams": async (url) => {
    // The library takes one choice. Some recordings have no usage.
    const found = [];
    for (const name of recordings.filter((name) => choicesOf(name) === 1)) {
      found.push(await parts(streamText({ model: provider(url, false)(name), prompt, tools, onError: () => {} })));
    }
    return found;
  },
  "context overflow": async (url) => [
    // Without retries switched off: an error that no repetition can mend must not be repeated.
    await failure(() => generateText({ model: provider(url)("context_overflow"), prompt })),
  ],
  "rate limit": async (url) =>
    failure(() => generateText({ model: provider(url)("rate_limit"), prompt, maxRetries: 0 })),
  "error in a stream": async (url) => {
    const errors = [];
    const onError = ({ error }) => errors.push(error?.message ?? error);
    const result = streamText({ model: provider(url)("broken"), prompt, onError });
    return [(await collect(result.textStream)).join(""), errors];
  },
  "abort": async (url) => {
    const before = await left();
    const controller = new AbortController();
    const result = streamText({ model: provider(url)("endless"), prompt, abortSignal: controller.signal });
    let text = "";
    for await (const part of result.textStream) {
      text += part;
      if (text.length === 3) controller.abort();
    }
    return [text, await upstreamIsLeft(before)];
  },
});
