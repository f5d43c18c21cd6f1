// What the tests of streams share.

import { LifecycleClient, textOf } from "../dist/index.js";

export const BODY = { model: "m", messages: [{ role: "user", content: "hi" }] };
const URLS = ["http://a", "http://b/"];

export const connect = (fetch, options = {}) =>
  new LifecycleClient({ urls: URLS, fetch, baseDelayMs: 1, maxDelayMs: 2, ...options });
export const replicasOf = (calls) => calls.map(({ url }) => new URL(url).host).join("");
export const positionsOf = (calls) => calls.map(({ headers }) => headers.get("last-event-id"));

/** Read a stream to its end: what it delivered, and the error that ended it. */
export async function read(stream) {
  const events = [];
  try {
    for await (const event of stream) events.push(event);
  } catch (error) {
    return { events, text: events.map(textOf).join(""), error };
  }
  return { events, text: events.map(textOf).join(""), error: null };
}
