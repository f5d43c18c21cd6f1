import { IntegrityError } from "./errors.js";
import type { ServerSentEvent } from "./event_parser.js";
import type { StreamEvent } from "./types.js";

const LAST_TYPES = new Set(["response.completed", "response.incomplete", "response.failed", "message_stop"]);

/** Return the text in an event of chat or text completions (of the first choice), or the empty text. */
export function textOf(event: StreamEvent<unknown>): string {
  const choices = isObject(event.data) && Array.isArray(event.data["choices"]) ? event.data["choices"] : [];
  const choice: unknown = choices.find((each) => isObject(each) && (each["index"] ?? 0) === 0);
  if (!isObject(choice)) return "";
  const text = isObject(choice["delta"]) ? choice["delta"]["content"] : choice["text"];
  return typeof text === "string" ? text : "";
}

/** Return whether this is the chunk with the usage, which a client asks for with `include_usage`. */
export function isUsage(data: Record<string, unknown>): boolean {
  return isObject(data["usage"]) && Array.isArray(data["choices"]) && data["choices"].length === 0;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Return whether the event ends a stream of the Responses or Messages API, which have no `[DONE]`. */
export function isLast(data: unknown): boolean {
  return isObject(data) && typeof data["type"] === "string" && LAST_TYPES.has(data["type"]);
}

/** Return the JSON in an event. Throws IntegrityError. */
export function parse({ id, data }: ServerSentEvent): unknown {
  try {
    return JSON.parse(data);
  } catch (cause) {
    throw new IntegrityError(`The event ${id ?? "without an id"} is not JSON`, { cause });
  }
}
