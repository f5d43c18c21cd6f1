import assert from "node:assert/strict";
import { test } from "node:test";

import {
  ConnectionError,
  IntegrityError,
  LifecycleClient,
  RequestFailedError,
  ResponseError,
  textOf,
} from "../dist/index.js";
import { chunk, chunks, DONE, failed, FINISH, frame, refused, scripted, status, streamed } from "./scripted_fetch.mjs";

const BODY = { model: "m", messages: [{ role: "user", content: "hi" }] };
const URLS = ["http://a", "http://b/"];

const connect = (fetch, options = {}) =>
  new LifecycleClient({ urls: URLS, fetch, baseDelayMs: 1, maxDelayMs: 2, ...options });
const replicasOf = (calls) => calls.map(({ url }) => new URL(url).host).join("");
const positionsOf = (calls) => calls.map(({ headers }) => headers.get("last-event-id"));

/** Read a stream to its end: what it delivered, and the error that ended it. */
async function read(stream) {
  const events = [];
  try {
    for await (const event of stream) events.push(event);
  } catch (error) {
    return { events, text: events.map(textOf).join(""), error };
  }
  return { events, text: events.map(textOf).join(""), error: null };
}

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

test("numbers without an event are no gap, and resuming is behind what was delivered", async () => {
  const { fetch, calls } = scripted(
    streamed([": no event 1-1\n\n", chunk(2), ": no event 1-3\n\n"], { then: "break" }),
    streamed([": no event 1-3\n\n", chunk(4), DONE]),
  );
  const { text, error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([text, error, positionsOf(calls)], ["2 4 ", null, [null, "1-2"]]);
});

for (const [what, ...texts] of [
  ["a gap", chunk(1), chunk(3)],
  ["a repeat", chunk(1), chunk(1)],
  ["another order", chunk(1), chunk(2), chunk(1)],
  ["an earlier attempt", chunk(1, 2), chunk(2, 1)],
  ["a gap that a comment does not explain", chunk(1), ": no event 1-3\n\n", chunk(4)],
  ["an id that is none", chunk(1), "id: x\ndata: {}\n\n"],
  ["half of an event", chunk(1), "id: 1-2\ndata: {\n\n"],
]) {
  test(`${what} is an error, and nothing behind it is delivered`, async () => {
    const { fetch } = scripted(streamed([texts.join(""), DONE]));
    const { events, error } = await read(connect(fetch).stream(BODY));
    assert.ok(error instanceof IntegrityError, String(error));
    assert.equal(error.lastEventId, events.at(-1).id);
    assert.ok(events.length <= 2);
  });
}

test("a replica that resumes at the wrong event is an error", async () => {
  for (const wrong of [chunk(1), chunk(4)]) {
    const { fetch } = scripted(streamed(chunks(1, 2), { then: "break" }), streamed([wrong]));
    const { events, error } = await read(connect(fetch).stream(BODY));
    assert.deepEqual([events.length, error.name], [2, "IntegrityError"]);
  }
});

test("another event in the place of one that was delivered is an error", async () => {
  const { fetch } = scripted(streamed(chunks(1, 3), { then: "break" }), status(204), streamed([chunk(3, 2), DONE]));
  const { events, error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([events.length, error.name], [3, "IntegrityError"]);
});

test("an error frame is thrown with what it says", async () => {
  const told = {
    message: "slow",
    type: "timeout_error",
    code: 504,
    param: null,
    error_type: "deadline",
    request_id: "r-1",
  };
  const { fetch } = scripted(streamed([chunk(1), frame(told), DONE]));
  const { events, error } = await read(connect(fetch).stream(BODY));
  assert.ok(error instanceof RequestFailedError);
  const { message, type, code, status, errorType, requestId, lastEventId } = error;
  assert.deepEqual([message, type, code, status, errorType], ["slow", "timeout_error", 504, 504, "deadline"]);
  assert.deepEqual([events.length, requestId, lastEventId], [1, "r-1", "1-1"]);
});

test("a replica that gives up the stream is no end of the request, unless the record says so", async () => {
  const shutDown = streamed([chunk(1), frame({ message: "shut down", code: 503, error_type: "frontend_lost" }), DONE]);
  const goesOn = scripted(shutDown, status(200, { status: "running" }), streamed([chunk(2), FINISH, DONE]));
  assert.equal(await connect(goesOn.fetch).stream(BODY).text(), "1 2 ");
  assert.equal(replicasOf(goesOn.calls), "aab");
  const hasEnded = scripted(shutDown, status(200, { status: "failed" }));
  const { error } = await read(connect(hasEnded.fetch).stream(BODY));
  assert.deepEqual([error.name, error.errorType, error.message], ["RequestFailedError", "frontend_lost", "shut down"]);
});

test("a refusal is thrown at once with what it says, unless repeating may help", async () => {
  const error = { message: "no", type: "not_found_error", code: "model_not_found", param: "model" };
  const refusals = [
    failed(404, error, { "x-request-id": "r-9", "x-should-retry": "false" }),
    failed(500, error, { "x-should-retry": "false" }),
  ];
  for (const refusal of refusals) {
    const { fetch, calls } = scripted(refusal);
    const { error: thrown } = await read(connect(fetch).stream(BODY));
    assert.ok(thrown instanceof ResponseError);
    assert.deepEqual(
      [thrown.code, thrown.type, thrown.param, thrown.message],
      ["model_not_found", "not_found_error", "model", "no"],
    );
    assert.equal(calls.length, 1);
  }
});

test("a draining replica is left at once, and all of them are waited for as long as they ask", async () => {
  const draining = failed(503, { message: "draining", code: "draining" }, { "retry-after": "0.2" });
  const { fetch, calls } = scripted(draining, draining, streamed([chunk(1), DONE]));
  const before = performance.now();
  assert.equal(await connect(fetch).stream(BODY).text(), "1 ");
  assert.equal(replicasOf(calls), "aba");
  assert.ok(performance.now() - before >= 190);
});

test("a limit of the caller is waited for, although there is another replica", async () => {
  const limit = failed(429, { message: "limit", code: "inflight_limit" }, { "retry-after": "0.2" });
  const { fetch } = scripted(limit, streamed([chunk(1), DONE]));
  const before = performance.now();
  assert.equal(await connect(fetch).stream(BODY).text(), "1 ");
  assert.ok(performance.now() - before >= 190);
});

test("a Retry-After of more than a minute is the caller's to wait for", async () => {
  const { fetch } = scripted(failed(429, { message: "later" }, { "retry-after": "3600" }));
  const { error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([error.status, error.retryAfterMs], [429, 3_600_000]);
});

test("tries are bounded, and an event starts them anew", async () => {
  const broken = (number) => streamed([chunk(number)], { then: "break" });
  const { fetch, calls } = scripted(broken(1), refused, refused, broken(2), refused, refused, refused);
  const { events, error } = await read(connect(fetch, { maxRetries: 3 }).stream(BODY));
  assert.ok(error instanceof ConnectionError);
  assert.match(error.message, /http:\/\/\w broke: fetch failed: connect ECONNREFUSED/);
  assert.deepEqual([events.length, calls.length, error.requestId, error.lastEventId], [2, 7, "r-1", "1-2"]);
});

test("an error while a stream is resumed names the request, and not the call that failed", async () => {
  const unknown = failed(404, { message: "unknown", code: "request_not_found" }, { "x-request-id": "of-the-call" });
  const { fetch } = scripted(streamed([], { then: "break" }), unknown);
  const { error } = await read(connect(fetch).stream(BODY));
  assert.deepEqual([error.code, error.requestId, error.lastEventId], ["request_not_found", "r-1", null]);
});

test("a keepalive starts the tries anew", async () => {
  const alive = streamed([": keepalive\n\n"], { then: "break" });
  const { fetch } = scripted(alive, alive, alive, streamed([chunk(1), DONE]));
  assert.equal(await connect(fetch, { maxRetries: 1 }).stream(BODY).text(), "1 ");
});

test("a silent replica is left, and keepalives are no silence", async () => {
  const alive = (init) => {
    let count = 0;
    const body = new ReadableStream({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, 60));
        controller.enqueue(new TextEncoder().encode(++count < 5 ? ": keepalive\n\n" : chunk(2) + DONE));
      },
    });
    return new Response(body);
  };
  const { fetch, calls } = scripted(streamed([chunk(1)], { then: "wait" }), () => new Promise(() => {}), alive);
  const { text, error } = await read(connect(fetch).stream(BODY, { silenceTimeoutMs: 150 }));
  assert.deepEqual([text, error, replicasOf(calls)], ["1 2 ", null, "aba"]);
});

test("behind an abort nothing is delivered, also of what has already come", async () => {
  const { fetch } = scripted(streamed([chunks(1, 3).join("")]), status(202, {}));
  const stopping = new AbortController();
  const numbers = [];
  await assert.rejects(
    async () => {
      for await (const { number } of connect(fetch).stream(BODY, { signal: stopping.signal })) {
        numbers.push(number);
        stopping.abort();
      }
    },
    { name: "AbortError" },
  );
  assert.deepEqual(numbers, [1]);
});

for (const onAbort of ["cancel", "leave"]) {
  test(`an abort throws its reason, and the request: ${onAbort}`, async () => {
    const { fetch, calls } = scripted(streamed([chunk(1)], { then: "wait" }), status(202, {}));
    const stopping = new AbortController();
    const stream = connect(fetch).stream(BODY, { signal: stopping.signal, onAbort });
    const reason = new Error("the user left");
    await assert.rejects(
      async () => {
        for await (const { number } of stream) if (number === 1) setTimeout(() => stopping.abort(reason), 5);
      },
      (error) => error === reason,
    );
    const further = calls.slice(1).map(({ method, url }) => `${method} ${url}`);
    assert.deepEqual(further, onAbort === "cancel" ? ["POST http://a/v1/requests/r-1/cancel"] : []);
    assert.ok(calls[0].signal.aborted);
  });
}

test("an abort cancels at once, also while the reader is busy with an event", async () => {
  const { fetch, calls } = scripted(streamed([chunk(1)], { then: "wait" }), status(202, {}));
  const stopping = new AbortController();
  await assert.rejects(
    async () => {
      for await (const _ of connect(fetch).stream(BODY, { signal: stopping.signal })) {
        stopping.abort();
        await new Promise((resolve) => setTimeout(resolve, 5));
        assert.match(calls.at(-1).url, /\/cancel$/);
      }
    },
    { name: "AbortError" },
  );
});

test("leaving the loop cancels what was started, and leaves what was only read", async () => {
  const { fetch, calls } = scripted(streamed(chunks(1, 3)), status(200, {}), streamed(chunks(1, 3)));
  const client = connect(fetch);
  for await (const _ of client.stream(BODY)) break;
  for await (const _ of client.resume("r-1")) break;
  assert.deepEqual(
    calls.map(({ method }) => method),
    ["POST", "POST", "GET"],
  );
  assert.ok(calls.filter(({ url }) => !url.endsWith("/cancel")).every(({ signal }) => signal.aborted));
});

test("an abort before the start sends nothing, and one during the wait for a replica ends it", async () => {
  const { fetch, calls } = scripted(refused, refused, status(404, {}));
  await assert.rejects(connect(fetch).stream(BODY, { signal: AbortSignal.abort() }).text(), { name: "AbortError" });
  assert.equal(calls.length, 0);
  const slow = connect(fetch, { baseDelayMs: 60_000, maxDelayMs: 60_000 });
  await assert.rejects(slow.stream(BODY, { signal: AbortSignal.timeout(30) }).text(), { name: "TimeoutError" });
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
