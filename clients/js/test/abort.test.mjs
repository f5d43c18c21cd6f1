import assert from "node:assert/strict";
import { test } from "node:test";

import { BODY, connect, read } from "./reading.mjs";
import { chunk, chunks, refused, scripted, status, streamed } from "./scripted_fetch.mjs";

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
