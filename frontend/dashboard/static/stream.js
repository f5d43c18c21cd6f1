// Follow server-sent events with fetch instead of EventSource: with fetch the status of an error response is known, so
// that a 401 can open the log-in dialog, and the page itself controls when to reconnect.

import { responseError } from "./api.js";
import { logIn } from "./session.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;

/** Yield `{id, data}` for each event of one response, until it ends. */
async function* parse(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, data: null };
      for (const line of block.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("data: ")) event.data = line.slice(6);
      }
      if (event.data !== null) yield event;
    }
  }
}

/**
 * Follow a stream until `close()`. After an interruption it reconnects and resumes behind the last id it has seen.
 * It calls `onOpen()`, `onEvent(data)`, and `onTrouble(problem)` before each new attempt. If `onRefused(problem)` is
 * given, it is called for a 4xx response, and the stream ends.
 */
export class Stream {
  #abort = new AbortController();
  #lastId = null;
  #handlers;
  #path;

  constructor(path, handlers) {
    this.#path = path;
    this.#handlers = handlers;
    this.#run();
  }

  close() {
    this.#abort.abort();
  }

  async #run() {
    const { signal } = this.#abort;
    for (let pauseMs = FIRST_PAUSE_MS; !signal.aborted; ) {
      try {
        if (await this.#follow()) pauseMs = FIRST_PAUSE_MS;
        if (signal.aborted) return;
        this.#handlers.onTrouble({ message: "the connection was closed", status: 0 });
      } catch (problem) {
        if (signal.aborted) return;
        if (problem.status === 401) {
          await logIn();
          continue;
        }
        if (problem.status >= 400 && problem.status < 500 && this.#handlers.onRefused) {
          this.#handlers.onRefused(problem);
          return;
        }
        this.#handlers.onTrouble(problem);
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
    }
  }

  /** Follow one response to its end. Return whether it had an event. */
  async #follow() {
    const headers = this.#lastId === null ? {} : { "last-event-id": this.#lastId };
    let response, received = false;
    try {
      response = await fetch(this.#path, { headers, cache: "no-store", signal: this.#abort.signal });
    } catch {
      throw { message: "no response", status: 0 };
    }
    if (!response.ok) throw await responseError(response);
    this.#handlers.onOpen();
    try {
      for await (const { id, data } of parse(response)) {
        if (this.#abort.signal.aborted) return received;
        received = true;
        if (id !== null) this.#lastId = id;
        this.#handlers.onEvent(data);
      }
    } catch (problem) {
      if (!(problem instanceof TypeError) && problem.name !== "AbortError") console.error(problem);
    }
    return received;
  }
}
