// The AI SDK with its provider for OpenAI, whose default is the Responses API.

import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";

import { apiKey, Clock, collect, hello as prompt, left, main, model, upstreamIsLeft, Weather } from "./cases.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const tools = {
  weather: tool({ inputSchema: Weather, execute: async ({ city }) => `sunny in ${city}` }),
  clock: tool({ inputSchema: Clock, execute: async ({ zone }) => `noon in ${zone}` }),
};
const stopWhen = stepCountIs(3);
const engine = (baseURL, name) => createOpenAI({ baseURL, apiKey })(model(name));
const ofEachCall = new Set(["id", "itemId", "request", "response", "headers", "timestamp", "performance", "callId", "responseId"]);
const settled = (value) => JSON.parse(JSON.stringify(value, (name, inner) => (ofEachCall.has(name) ? undefined : inner)));

// What does not depend on the engine's own API. The results of all other fields are compared where it is the same.
async function both(result, whole) {
  const [text, finishReason, usage, steps] = [await result.text, await result.finishReason, await result.usage, await result.steps];
  const calls = steps.flatMap((step) => step.toolCalls.map(({ toolName, input }) => [toolName, input]));
  const tokens = [usage.inputTokens, usage.outputTokens, usage.totalTokens];
  return { plain: { text, finishReason, tokens, calls, steps: steps.length }, whole: settled(whole ?? steps) };
}

async function parts(url, name, call = {}) {
  const result = streamText({ model: engine(url, name), prompt, ...call });
  const found = await collect(result.fullStream);
  return both(result, found);
}

const generated = async (url, name, call = {}) => both(await generateText({ model: engine(url, name), prompt, ...call }));

// The second call has the first answer. By default, when responses are stored, it has only the ids of its items.
async function conversation(url, openai) {
  const call = { model: engine(url, "text"), providerOptions: { openai } };
  const first = await generateText({ ...call, prompt });
  const messages = [{ role: "user", content: prompt }, ...first.response.messages, { role: "user", content: "Go on." }];
  return both(await generateText({ ...call, messages }));
}

async function failure(run) {
  try {
    return await run();
  } catch (error) {
    if (!APICallError.isInstance(error)) throw error;
    const { name, message, statusCode, isRetryable, data } = error;
    return { plain: { raised: name, message, statusCode, isRetryable, type: data?.error.type, code: data?.error.code } };
  }
}

await main({
  "text": (url) => generated(url, "text", { system: "Be brief." }),
  "streamed text": (url) => parts(url, "text"),
  "tool call": (url) => generated(url, "tool", { tools }),
  "streamed tool call": (url) => parts(url, "tool", { tools }),
  "parallel tool calls": (url) => generated(url, "parallel_agent", { tools, stopWhen }),
  "streamed parallel tool calls": (url) => parts(url, "parallel_agent", { tools, stopWhen }),
  "agent with a tool": (url) => parts(url, "agent", { tools, stopWhen }),
  "conversation": (url) => conversation(url, { store: false }),
  "conversation by item ids": (url) => failure(() => conversation(url, {})),
  "structured output": async (url) => ({
    plain: (await generateObject({ model: engine(url, "structured"), prompt, schema: Weather })).object,
  }),
  "streamed structured output": async (url) => {
    const result = streamObject({ model: engine(url, "structured"), prompt, schema: Weather });
    const whole = await collect(result.partialObjectStream);
    return { plain: await result.object, whole };
  },
  "reasoning": (url) => parts(url, "reasoning"),
  "context overflow": (url) => failure(() => generated(url, "context_overflow")),
  "rate limit": (url) => failure(() => generated(url, "rate_limit", { maxRetries: 0 })),
  "error in a stream": async (url) => {
    const errors = [];
    const onError = ({ error }) => errors.push(error?.message ?? error);
    const result = streamText({ model: engine(url, "broken"), prompt, onError });
    const text = (await collect(result.textStream)).join("");
    return { plain: [text.slice(0, 6), await result.finishReason], whole: errors };
  },
  "abort": async (url) => {
    const before = await left();
    const controller = new AbortController();
    const result = streamText({ model: engine(url, "endless"), prompt, abortSignal: controller.signal });
    let text = "";
    for await (const part of result.textStream) {
      text ||= part;
      controller.abort();
    }
    return { plain: [text, await upstreamIsLeft(before)] };
  },
});
