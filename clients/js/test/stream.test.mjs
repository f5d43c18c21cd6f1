import assert from "node:assert/strict";
import { test } from "node:test";

import { RequestFailedError } from "../dist/index.js";
import { BODY, connect, positionsOf, read, replicasOf } from "./reading.mjs";
import { chunk, chunks, DONE, FINISH, frame, refused, scripted, status, streamed } from "./scripted_fetch.mjs";

test("a stream delivers each event with its position, and the call can be repeated and resumed", async () => {
  const { fetch, calls } = scripted(streamed([...chunks(1, 2), FINISH, DONE]));
  const stream = connect(fetch, { apiKey: async () => "k" }).stream(BODY, { headers: { "X-Deadline-Secs": "9" } });
  const { events, error } = await read(stream);
  assert.equal(error, null);
  assert.deepEqual(
    events.map(({ id, attempt, number }) => [id, attempt, number]),
    [
      ["1-1", 1, 1],
      ["1-2", 1, 2],
      [null, null, null],
    ],
  );
  assert.deepEqual([stream.requestId, stream.lastEventId], ["r-1", "1-2"]);
  const [{ url, method, headers, body }] = calls;
  assert.deepEqual(
    [method, url, JSON.parse(body)],
    ["POST", "http://a/v1/chat/completions", { ...BODY, stream: true }],
  );
  assert.deepEqual([headers.get("authorization"), headers.get("x-deadline-secs")], ["Bearer k", "9"]);
  assert.deepEqual([headers.get("x-disconnect-grace-secs"), headers.get("x-on-disconnect")], ["30", null]);
  assert.match(headers.get("x-request-id"), /^js-[0-9a-f]{32}$/);
  assert.match(headers.get("idempotency-key"), /^[0-9a-f]{32}$/);
});

test("a stream that breaks goes on at the next replica behind the last event", async () => {
  const { fetch, calls } = scripted(
    streamed([...chunks(1, 2), chunk(3).slice(0, 20)], { then: "break" }),
    streamed(chunks(3, 4), { then: "end" }), // without [DONE]: cut in order, as a proxy does
    refused,
    streamed([chunk(5, 2), FINISH, DONE]),
  );
  const { text, error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([text, error], ["1 2 3 4 5 ", null]);
  assert.deepEqual([replicasOf(calls), positionsOf(calls)], ["abab", [null, "1-2", "1-4", "1-4"]]);
  assert.equal(calls[3].url, "http://b/v1/requests/r-1/stream");
});

test("a call whose answer never came is repeated with the same key and id", async () => {
  const { fetch, calls } = scripted(refused, streamed([chunk(1), DONE]));
  assert.equal(await connect(fetch).stream(BODY).text(), "1 ");
  const [first, second] = calls.map(({ headers }) => [headers.get("idempotency-key"), headers.get("x-request-id")]);
  assert.deepEqual(first, second);
});

test("what has no id is not delivered again, and not lost", async () => {
  const usage = `data: ${JSON.stringify({ choices: [], usage: { total_tokens: 3 } })}\n\n`;
  const { fetch } = scripted(
    streamed([chunk(1), FINISH], { then: "break" }),
    streamed([FINISH], { then: "break" }),
    streamed([FINISH, usage, DONE]),
  );
  const { events, error } = await read(connect(fetch).stream(BODY));
  assert.equal(error, null);
  assert.deepEqual(
    events.map(({ data }) => data.choices[0]?.finish_reason ?? data.usage?.total_tokens),
    [undefined, "stop", 3],
  );
});

test("what has no id and came before another event does not count behind it", async () => {
  const { fetch } = scripted(streamed([chunk(1), FINISH, chunk(2)], { then: "break" }), streamed([FINISH, DONE]));
  const { events, error } = await read(connect(fetch).stream(BODY));
  assert.equal(error, null);
  assert.deepEqual(
    events.map(({ id }) => id),
    ["1-1", null, "1-2", null],
  );
});

test("a character may be cut anywhere", async () => {
  const bytes = new TextEncoder().encode(chunk(1, 1, "Grüße, 世界 🌍") + DONE);
  const { fetch } = scripted(streamed(Array.from(bytes, (_, index) => bytes.slice(index, index + 1))));
  assert.equal(await connect(fetch).stream(BODY).text(), "Grüße, 世界 🌍");
});

test("the usage that was asked for comes from the record, if the stream was resumed", async () => {
  const body = { ...BODY, stream_options: { include_usage: true } };
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  const { fetch } = scripted(
    streamed([chunk(1)], { then: "break" }),
    streamed([FINISH, DONE]),
    status(200, { status: "completed", usage }),
  );
  const { events, error } = await read(connect(fetch).stream(body));
  assert.equal(error, null);
  assert.deepEqual([events.length, events[2].data.choices, events[2].data.usage], [3, [], usage]);
});

for (const [last, outcome] of [
  [[FINISH, DONE], null],
  [
    [frame({ message: "gone", code: 500, type: "internal_server_error", error_type: "worker_lost" }), DONE],
    "worker_lost",
  ],
]) {
  test(`a stream that broke behind its last event still ends as it did: ${outcome ?? "well"}`, async () => {
    const { fetch, calls } = scripted(
      streamed(chunks(1, 3), { then: "break" }),
      status(204),
      streamed([chunk(3), ...last]),
    );
    const { events, error } = await read(connect(fetch).stream(BODY));
    assert.equal(events.filter(({ id }) => id !== null).length, 3);
    assert.deepEqual(positionsOf(calls), [null, "1-3", "1-2"]);
    assert.equal(error?.errorType ?? null, outcome);
    assert.equal(events.at(-1).data.choices[0].finish_reason ?? null, outcome === null ? "stop" : null);
  });
}

test("the end is read again, too, when its connection breaks", async () => {
  const { fetch, calls } = scripted(
    streamed(chunks(1, 2), { then: "break" }),
    status(204),
    streamed([chunk(2)], { then: "break" }),
    status(204),
    streamed([chunk(2), FINISH, DONE]),
  );
  const { events, error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([error, events.at(-1).data.choices[0].finish_reason], [null, "stop"]);
  assert.deepEqual(positionsOf(calls), [null, "1-2", "1-1", "1-2", "1-1"]);
});

test("where the stream does not say how it ended, the record does", async () => {
  const record = { status: "cancelled", error_type: "cancelled", error_message: "enough" };
  const { fetch } = scripted(
    streamed(chunks(1, 2)),
    status(204),
    streamed([chunk(2)]),
    status(204),
    status(200, record),
  );
  const { error } = await read(connect(fetch).stream(BODY));
  assert.ok(error instanceof RequestFailedError);
  assert.deepEqual(
    [error.errorType, error.message, error.lastEventId, error.requestId],
    ["cancelled", "enough", "1-2", "r-1"],
  );
});

test("the streams of other endpoints end with their own last event", async () => {
  const named = (number, type) => `event: ${type}\nid: 1-${number}\ndata: ${JSON.stringify({ type })}\n\n`;
  for (const [path, ...types] of [
    ["/v1/responses", "response.created", "response.completed"],
    ["/v1/messages", "message_start", "message_stop"],
  ]) {
    const { fetch, calls } = scripted(streamed(types.map((type, index) => named(index + 1, type))));
    const { events, error } = await read(connect(fetch).stream({ model: "m" }, { path }));
    assert.deepEqual([error, events.map(({ event }) => event), calls.length], [null, types, 1]);
  }
  const { fetch } = scripted(
    streamed(['event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n']),
  );
  const { error } = await read(connect(fetch).stream({ model: "m" }, { path: "/v1/messages" }));
  assert.deepEqual([error.name, error.message, error.type], ["RequestFailedError", "no", "api_error"]);
});
