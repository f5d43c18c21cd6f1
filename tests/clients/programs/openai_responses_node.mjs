// The package `openai` for JavaScript at the Responses API.

import OpenAI from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";

import { apiKey, Clock, collect, elsewhere, hello, left, main, model, upstreamIsLeft, Weather } from "./cases.mjs";

const input = [{ role: "user", content: hello }];
const tools = [
  zodResponsesFunction({ name: "weather", parameters: Weather }),
  zodResponsesFunction({ name: "clock", parameters: Clock }),
];
const client = (baseURL, options = {}) => new OpenAI({ baseURL, apiKey, ...options });
const unary = (url, name, call = {}) => client(url).responses.create({ model: model(name), input, ...call });
const streamed = async (url, name, call = {}) => collect(await unary(url, name, { stream: true, ...call }));

// What does not depend on the engine's own API. The results of all other fields are compared where it is the same.
const plain = ({ output, status, usage }) => ({
  text: output.flatMap((item) => (item.type === "message" ? item.content.map((part) => part.text) : [])).join(""),
  calls: output.filter((item) => item.type === "function_call").map((call) => [call.name, JSON.parse(call.arguments)]),
  status,
  usage: [usage?.input_tokens, usage?.output_tokens, usage?.total_tokens],
});
const both = (response) => ({ plain: plain(response), whole: response });
const bothOf = (events) => ({ plain: plain(events.at(-1).response), whole: events });
const raised = (error) => ({
  raised: error.constructor.name,
  message: error.message,
  status: error.status,
  type: error.type,
  code: error.code,
});
const failure = async (run) => {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { plain: raised(error) };
  }
};

await main({
  "text": async (url) => both(await unary(url, "text", { instructions: "Be brief.", temperature: 0.5 })),
  "streamed text": async (url) => bothOf(await streamed(url, "text")),
  "tool call": async (url) => both(await unary(url, "tool", { tools, tool_choice: "required" })),
  "streamed tool call": async (url) => bothOf(await streamed(url, "tool", { tools })),
  "parallel tool calls": async (url) => both(await unary(url, "parallel_tools", { tools, parallel_tool_calls: true })),
  "streamed parallel tool calls": async (url) => {
    // The stream helper accumulates the events, and parses the arguments.
    const stream = client(url).responses.stream({ model: model("parallel_tools"), input, tools });
    const response = await stream.finalResponse();
    const calls = response.output.filter((item) => item.type === "function_call");
    return { plain: { ...plain(response), parsed: calls.map((call) => call.parsed_arguments) }, whole: response };
  },
  "agent with a tool": async (url) => {
    const items = [...input];
    for (let turn = 0; turn < 3; turn++) {
      const response = await unary(url, "parallel_agent", { input: items, tools });
      const calls = response.output.filter((item) => item.type === "function_call");
      if (!calls.length) return { plain: [turn, response.output_text], whole: response };
      items.push(...response.output);
      for (const { call_id } of calls) items.push({ type: "function_call_output", call_id, output: "sunny" });
    }
  },
  "structured output": async (url) => {
    const text = { format: zodTextFormat(Weather, "weather") };
    const response = await client(url).responses.parse({ model: model("structured"), input, text });
    return { plain: response.output_parsed, whole: response };
  },
  "reasoning": async (url) => {
    const events = await streamed(url, "reasoning", { reasoning: { summary: "auto" } });
    const types = events.at(-1).response.output.map((item) => item.type);
    return { plain: { ...plain(events.at(-1).response), types }, whole: events };
  },
  "context overflow": async (url) => [
    await failure(() => unary(url, "context_overflow")),
    await failure(() => streamed(url, "context_overflow")),
  ],
  "rate limit": (url) =>
    failure(() => client(url, { maxRetries: 0 }).responses.create({ model: model("rate_limit"), input })),
  "error in a stream": async (url) => {
    const events = await streamed(url, "broken");
    const text = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
    const { type, response } = events.at(-1);
    return { plain: { text: text.join("").slice(0, 6), type, message: response.error.message } };
  },
  "abort": async (url) => {
    const before = await left();
    const stream = await unary(url, "endless", { stream: true });
    let text = "";
    for await (const event of stream) {
      if (event.type !== "response.output_text.delta") continue;
      text ||= event.delta;
      stream.controller.abort();
    }
    return { plain: [text, await upstreamIsLeft(before)] };
  },
  // What follows is the tracker's own: the engine has no part in it.
  "background, resumed elsewhere": async (url) => {
    const other = elsewhere(url);
    if (!other) return null;
    const events = [];
    const stream = await unary(url, "text", { background: true, stream: true });
    for await (const event of stream) {
      events.push(event);
      if (event.type === "response.output_text.delta") break;
    }
    const { id } = events[0].response;
    const after = { stream: true, starting_after: events.at(-1).sequence_number };
    events.push(...(await collect(await client(other + "/v1").responses.retrieve(id, after))));
    const again = await collect(await client(url).responses.retrieve(id, { stream: true }));
    return {
      plain: {
        numbered: events.every((event, number) => event.sequence_number === number),
        repeated: JSON.stringify(again) === JSON.stringify(events),
        ...plain(await client(other + "/v1").responses.retrieve(id)),
      },
    };
  },
  "background, cancelled elsewhere": async (url) => {
    const other = elsewhere(url);
    if (!other) return null;
    const before = await left();
    const { id, status } = await unary(url, "endless", { background: true });
    for await (const event of await client(url).responses.retrieve(id, { stream: true })) {
      if (event.type === "response.output_text.delta") break;
    }
    const cancelled = await client(other + "/v1").responses.cancel(id);
    const ended = await client(url).responses.retrieve(id);
    return { plain: [status, cancelled.status, ended.status, await upstreamIsLeft(before)] };
  },
  "previous response": async (url) => {
    const other = elsewhere(url);
    if (!other) return null;
    const { id } = await unary(url, "agent", { tools });
    const { output } = await client(other + "/v1").responses.retrieve(id);
    const call_id = output.at(-1).call_id;
    const result = { type: "function_call_output", call_id, output: "sunny" };
    const next = await client(other + "/v1").responses.create({
      model: model("agent"),
      previous_response_id: id,
      input: [result],
    });
    const items = await collect(client(url).responses.inputItems.list(next.id, { order: "asc" }));
    await client(url).responses.delete(id);
    return { plain: [next.output_text, items.map((item) => item.type)] };
  },
});
