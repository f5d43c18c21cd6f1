import assert from "node:assert/strict";
import { test } from "node:test";

import { ConnectionError, RequestFailedError, ResponseError } from "../dist/index.js";
import { BODY, connect, read, replicasOf } from "./reading.mjs";
import { chunk, DONE, failed, FINISH, frame, refused, scripted, status, streamed } from "./scripted_fetch.mjs";

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
  const isUnknown = scripted(shutDown, failed(404, { message: "unknown" }));
  assert.equal((await read(connect(isUnknown.fetch).stream(BODY))).error.message, "shut down");
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
