// A chat transport for useChat. It calls the frontends from the page, so no other server has to keep answers for a reload.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { convertToModelMessages, streamText } from "ai";

export class LifecycleTransport {
  resumeStreamIsReplay = true; // for useChat: reconnectToStream begins with the first event

  // `frontends` are base URLs, `model` is a model's name, and `options` are further fields of the call's body.
  constructor(frontends, model, options = {}) {
    Object.assign(this, { frontends, model, options });
  }

  // Return what a reload must not lose: the messages, and the request id under which every frontend has the answer.
  kept(chatId) {
    return JSON.parse(sessionStorage.getItem(chatId)) ?? { messages: [] };
  }

  async sendMessages({ chatId, messages, abortSignal }) {
    const id = crypto.randomUUID();
    sessionStorage.setItem(chatId, JSON.stringify({ id, messages }));
    const headers = { "X-Request-Id": id, "X-On-Disconnect": "continue" };
    const post = (url, call) => fetch(url, { ...call, headers: { ...call.headers, ...headers } });
    return this.#parts(id, messages, abortSignal, post);
  }

  async reconnectToStream({ chatId, abortSignal }) {
    const { id, messages } = this.kept(chatId);
    const response = id && (await this.#resume(id, "", abortSignal));
    return response?.ok ? this.#parts(id, messages, abortSignal, () => response) : null; // null: it has expired
  }

  // End the answer with what there is of it. Closing the connection would not: the request continues.
  stop(chatId) {
    const [frontend] = this.frontends.slice(-1); // any of them
    const body = JSON.stringify({ mode: "stop" });
    return fetch(`${frontend}/v1/requests/${this.kept(chatId).id}/cancel`, { method: "POST", body });
  }

  // Let the SDK make the parts of a message from the response, as it does on a server.
  async #parts(id, messages, abortSignal, open) {
    const read = async (url, call) => {
      const response = await open(url, call);
      return response.ok ? new Response(streamOf(this.#events(id, response, abortSignal)), response) : response;
    };
    const engine = createOpenAICompatible({ name: "lifecycle", baseURL: this.frontends[0] + "/v1", fetch: read });
    const result = streamText({
      model: engine(this.model),
      messages: await convertToModelMessages(messages),
      providerOptions: { lifecycle: this.options },
      maxRetries: 0,
      abortSignal,
      onError: () => {}, // the page shows it
    });
    return result.toUIMessageStream({ onError: (error) => error.message });
  }

  // Yield the events of a response. Where its connection breaks, go on behind the last one at the next frontend.
  async *#events(id, response, signal) {
    for (let last = "", turn = 1; turn <= this.frontends.length; turn++) {
      try {
        for await (const event of split(response.body)) {
          yield event;
          if (/^data: \[DONE\]$/m.test(event)) return;
          [last, turn] = [/^id: (.*)$/m.exec(event)?.[1] ?? last, 1];
        }
      } catch (error) {
        if (signal?.aborted) throw error;
      }
      response = await this.#resume(id, last, signal);
      if (response.status === 204) return; // the last event was the end
      if (!response.ok) break;
    }
    throw new Error("The connection was lost.");
  }

  // Ask one frontend after the other for the events behind `last`, the one that was sent the question at the end.
  async #resume(id, last, signal) {
    const headers = last ? { "Last-Event-ID": last } : {};
    for (const frontend of [...this.frontends].reverse()) {
      const response = await fetch(`${frontend}/v1/requests/${id}/stream`, { headers, signal }).catch(() => null);
      if (response && response.status < 500) return response;
    }
    throw new Error("No frontend could be reached.");
  }
}

// Yield the events of an event stream as texts, each with the empty line that ends it.
async function* split(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "", read; !(read = await reader.read()).done; ) {
    const events = (rest + read.value).split(/(?<=\n\n)/);
    rest = events.at(-1).endsWith("\n\n") ? "" : events.pop();
    yield* events;
  }
}

function streamOf(texts) {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await texts.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => texts.return(),
  }).pipeThrough(new TextEncoderStream());
}
