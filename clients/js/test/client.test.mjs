import assert from "node:assert/strict";
import { test } from "node:test";

import { LifecycleClient, LifecycleError, ResponseError } from "../dist/index.js";
import { failed, refused, scripted, status, streamed } from "./scripted_fetch.mjs";

const connect = (fetch, options = {}) =>
  new LifecycleClient({ urls: ["http://a", "http://b"], fetch, baseDelayMs: 1, ...options });

test("each call has its path, and prefers the replica that worked last", async () => {
  const { fetch, calls } = scripted(refused, ...Array.from({ length: 8 }, () => status(200, { data: [] })));
  const client = connect(fetch);
  await client.get("r/1");
  await client.cancel("r-1", { mode: "stop", waitMs: 500 });
  await client.inflight({ model: "a b" });
  await client.replicas();
  await client.queue();
  await client.drainReplica("worker-1~1");
  await client.pauseReplica("worker-1");
  await client.resumeReplica("worker-1");
  assert.deepEqual(
    calls.map(({ method, url }) => `${method} ${url}`),
    [
      "GET http://a/v1/requests/r%2F1",
      "GET http://b/v1/requests/r%2F1",
      "POST http://b/v1/requests/r-1/cancel",
      "GET http://b/v1/inflight?model=a+b",
      "GET http://b/v1/replicas",
      "GET http://b/v1/queue",
      "POST http://b/v1/replicas/worker-1~1/drain",
      "POST http://b/v1/replicas/worker-1/pause",
      "POST http://b/v1/replicas/worker-1/resume",
    ],
  );
  assert.deepEqual(JSON.parse(calls[2].body), { mode: "stop", wait_ms: 500 });
});

test("requests are listed page by page, as far as they are read", async () => {
  const page = (ids, has_more) => status(200, { data: ids.map((id) => ({ id })), has_more });
  const { fetch, calls } = scripted(page(["c", "b"], true), page(["a"], false));
  const found = [];
  for await (const { id } of connect(fetch).requests({ status: "running", pageSize: 2 })) found.push(id);
  assert.deepEqual(found, ["c", "b", "a"]);
  assert.deepEqual(
    calls.map(({ url }) => new URL(url).search),
    ["?status=running&limit=2", "?status=running&limit=2&after=b"],
  );
});

test("answers that break or are no JSON are asked for again, and errors have what the answer says", async () => {
  const html = () => new Response("<html>");
  const { fetch } = scripted(streamed(["{"], { then: "break" }), html, status(200, { id: "r-1" }));
  assert.deepEqual(await connect(fetch).get("r-1"), { id: "r-1" });

  const gateway = () => new Response("bad gateway", { status: 502 });
  const unknown = scripted(
    gateway,
    failed(404, { message: "unknown", code: "request_not_found" }, { "x-request-id": "q" }),
  );
  await assert.rejects(connect(unknown.fetch).get("r-1"), (error) => {
    assert.ok(error instanceof ResponseError && error instanceof LifecycleError);
    assert.deepEqual(
      [error.status, error.code, error.requestId, error.message],
      [404, "request_not_found", "q", "unknown"],
    );
    return true;
  });
});

test("a replica that does not answer is left, and a call can be aborted", async () => {
  const silent = (init) =>
    new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
  const { fetch } = scripted(silent, status(200, { total: 1 }), silent);
  const client = connect(fetch, { timeoutMs: 50 });
  assert.equal((await client.inflight()).total, 1);
  await assert.rejects(client.inflight({ signal: AbortSignal.timeout(10) }), { name: "TimeoutError" });
});

test("wrong options are refused", () => {
  assert.throws(() => new LifecycleClient({ urls: [] }), TypeError);
  assert.throws(() => connect(refused).resume("r-1", { after: "7" }), TypeError);
});
