import { IntegrityError } from "./errors.js";

/** One server-sent event. `id` and `name` are those of this event alone, null without such a line. */
export interface ServerSentEvent {
  kind: "event";
  id: string | null;
  name: string | null;
  data: string;
}

/** One line that is no part of an event, for example a keepalive. */
export interface Comment {
  kind: "comment";
  text: string;
}

const LONGEST_EVENT_CHARS = 128 * 1024 * 1024;

/** Parses an event stream, as the HTML standard describes it, from texts that may be cut anywhere. */
export class EventParser {
  #line: string[] = []; // the pieces of the line that has not ended
  #chars = 0; // of the event that has not ended
  #isBehindCarriageReturn = false;
  #isFirstLine = true;
  #id: string | null = null;
  #name: string | null = null;
  #data: string[] = [];

  /** Return the events and comments that end in this text. Throws IntegrityError when an event is too large. */
  push(text: string): (ServerSentEvent | Comment)[] {
    if (text === "") return [];
    const lines = (this.#isBehindCarriageReturn && text[0] === "\n" ? text.slice(1) : text).split(/\r\n|\n|\r/);
    this.#isBehindCarriageReturn = text.endsWith("\r");
    this.#chars += text.length;
    const found: (ServerSentEvent | Comment)[] = [];
    for (const part of lines.slice(0, -1)) {
      this.#line.push(part);
      const item = this.#take(this.#line.join(""));
      this.#line = [];
      if (item !== null) found.push(item);
    }
    this.#line.push(lines.at(-1) ?? "");
    if (found.length > 0) this.#chars = text.length;
    if (this.#chars > LONGEST_EVENT_CHARS) throw new IntegrityError("An event is larger than 128 Mi characters");
    return found;
  }

  /** Take one whole line; return what it completes. */
  #take(line: string): ServerSentEvent | Comment | null {
    if (this.#isFirstLine && line.startsWith("\uFEFF")) line = line.slice(1);
    this.#isFirstLine = false;
    if (line === "") return this.#complete();
    const colon = line.indexOf(":");
    if (colon === 0) return { kind: "comment", text: line.slice(1).trim() };
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "event") this.#name = value;
    return null;
  }

  /** Return the event that an empty line ends; null without data. */
  #complete(): ServerSentEvent | null {
    const event: ServerSentEvent = { kind: "event", id: this.#id, name: this.#name, data: this.#data.join("\n") };
    const hasData = this.#data.length > 0;
    [this.#id, this.#name, this.#data] = [null, null, []];
    return hasData ? event : null;
  }
}
