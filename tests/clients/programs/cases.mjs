// Run named cases at each server, and print a line of JSON for each result, as cases.py does.
//
//   node program.mjs REPLAY_URL URL…

import { readdirSync } from "node:fs";

import { z } from "zod";

export const apiKey = "none";
export const hello = "Say something.";
export const Weather = z.object({ city: z.enum(["Paris", "Rome"]), days: z.union([z.literal(1), z.literal(2), z.literal(3)]) });
export const Clock = z.object({ zone: z.enum(["UTC", "CET"]) });

export const recordings = readdirSync(new URL("../../recorded/", import.meta.url))
  .filter((name) => name.endsWith(".sse"))
  .map((name) => name.slice(0, -".sse".length));
export const choicesOf = (recording) => (recording.includes("_n2_") ? 2 : 1);

// The name of a model, of the upstream that this run is about.
export const model = (name) => (process.env.MODEL_PREFIX ?? "") + name;

const [replay, ...urls] = process.argv.slice(2);
const leftWithinMs = 10_000;
const pollMs = 20;

// The base URL of another frontend, or undefined for the engine itself.
export const elsewhere = (url) => urls.slice(1).find((other) => !url.startsWith(urls[0]) && !url.startsWith(other));

// How many unfinished answers their clients have left, as the replay server counts them.
export const left = async () => (await fetch(replay + "/left")).json();

// Whether the connection to the engine is closed soon.
export async function upstreamIsLeft(before) {
  const giveUpAt = Date.now() + leftWithinMs;
  while ((await left()) === before) {
    if (Date.now() > giveUpAt) return false;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
  return true;
}

export async function collect(iterable) {
  const found = [];
  for await (const item of iterable) found.push(item);
  return found;
}

// Run each case, a function of the server's URL, and print a line of JSON for its result.
export async function main(cases) {
  for (const url of urls) {
    for (const [feature, run] of Object.entries(cases)) {
      let result;
      try {
        result = await run(url + "/v1");
      } catch (error) {
        result = { failed: `${error.name}: ${error.message}` };
      }
      console.log(JSON.stringify({ url, feature, result: result ?? null }));
    }
  }
}
