import assert from "node:assert/strict";
import { test } from "node:test";

import { IntegrityError } from "../dist/index.js";
import { BODY, connect, positionsOf, read } from "./reading.mjs";
import { chunk, chunks, DONE, scripted, status, streamed } from "./scripted_fetch.mjs";

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
