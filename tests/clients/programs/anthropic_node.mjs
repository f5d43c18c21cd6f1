// The package `@anthropic-ai/sdk` for JavaScript.

import Anthropic from "@anthropic-ai/sdk";
import { z } from "zod";

import { apiKey, Clock, collect, hello, left, main, model, upstreamIsLeft, Weather } from "./cases.mjs";

const messages = [{ role: "user", content: hello }];
const schemaOf = (type) => ({ ...z.toJSONSchema(type), $schema: undefined });
const tools = [
  { name: "weather", description: "Tell the weather.", input_schema: schemaOf(Weather) },
  { name: "clock", description: "Tell the time.", input_schema: schemaOf(Clock) },
];
const client = (url, options = {}) => new Anthropic({ baseURL: url.replace(/\/v1$/, ""), apiKey, ...options });
const call = (name, more) => ({ model: model(name), max_tokens: 256, messages, ...more });
const unary = (url, name, more = {}) => client(url).messages.create(call(name, more));
const streamed = async (url, name, more = {}) => collect(await client(url).messages.create({ ...call(name, more), stream: true }));

// What does not depend on the engine's own API. The results of all other fields are compared where it is the same.
const plain = ({ content, stop_reason, usage }) => ({
  text: content.filter((block) => block.type === "text").map((block) => block.text),
  thinking: content.filter((block) => block.type === "thinking").map((block) => block.thinking),
  calls: content.filter((block) => block.type === "tool_use").map((block) => [block.name, block.input]),
  stop_reason,
  usage: usage.output_tokens,
});
const both = (message) => ({ plain: plain(message), whole: message });
const helped = async (url, name, more = {}) => {
  // The stream helper accumulates the events.
  const stream = client(url).messages.stream(call(name, more));
  const events = await collect(stream);
  return { plain: plain(await stream.finalMessage()), whole: events };
};
const failure = async (run) => {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Anthropic.APIError)) throw error;
    return { plain: { raised: error.constructor.name, status: error.status, error: error.error?.error } };
  }
};

await main({
  "text": async (url) => both(await unary(url, "text", { system: "Be brief.", temperature: 0.5 })),
  "streamed text": async (url) => ({ ...(await helped(url, "text")), raw: await streamed(url, "text") }),
  "tool call": async (url) => both(await unary(url, "tool", { tools, tool_choice: { type: "any" } })),
  "streamed tool call": (url) => helped(url, "tool", { tools }),
  "parallel tool calls": async (url) => both(await unary(url, "parallel_tools", { tools })),
  "streamed parallel tool calls": (url) => helped(url, "parallel_tools", { tools }),
  "agent with a tool": async (url) => {
    const turns = [...messages];
    for (let turn = 0; turn < 3; turn++) {
      const message = await unary(url, "parallel_agent", { messages: turns, tools });
      const calls = message.content.filter((block) => block.type === "tool_use");
      if (!calls.length) return { plain: { turn, ...plain(message) }, whole: message };
      const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "sunny" }));
      turns.push({ role: "assistant", content: message.content }, { role: "user", content: results });
    }
  },
  "reasoning": (url) => helped(url, "reasoning", { thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 2048 }),
  "context overflow": async (url) => [
    await failure(() => unary(url, "context_overflow")),
    await failure(() => streamed(url, "context_overflow")),
  ],
  "rate limit": (url) => failure(() => client(url, { maxRetries: 0 }).messages.create(call("rate_limit"))),
  "error in a stream": async (url) => {
    let text = "";
    try {
      for await (const event of await client(url).messages.create({ ...call("broken"), stream: true })) {
        text += event.delta?.text ?? "";
      }
    } catch (error) {
      if (!(error instanceof Anthropic.APIError)) throw error;
      return { plain: [text.slice(0, 6), error.error?.error.message] };
    }
  },
  "abort": async (url) => {
    const before = await left();
    const stream = client(url).messages.stream(call("endless"));
    let text = "";
    try {
      for await (const event of stream) {
        if (event.delta?.text) text ||= event.delta.text;
        if (text) stream.abort();
      }
    } catch (error) {
      if (!(error instanceof Anthropic.APIUserAbortError)) throw error;
    }
    return { plain: [text, await upstreamIsLeft(before)] };
  },
});
