// A fetch for the tests. Each call takes the next of the scripted answers, which says what the connection brings.

/** Return { fetch, calls }: `answers` are functions of the call, or what `answer` makes. */
export function scripted(...answers) {
  const calls = [];
  const fetch = async (url, init) => {
    calls.push({ url, ...init, headers: new Headers(init.headers) });
    const next = answers.shift();
    if (next === undefined) throw new Error(`nothing is scripted for call ${calls.length}: ${init.method} ${url}`);
    return next(init);
  };
  return { fetch, calls };
}

/** Bring these texts or bytes, and then end well, break, or stay silent until the call is aborted. */
export function streamed(texts, { then = "end", headers = {} } = {}) {
  return (init) => {
    const encoder = new TextEncoder();
    const pending = [...texts];
    const body = new ReadableStream({
      start(controller) {
        init.signal.addEventListener("abort", () => controller.error(init.signal.reason), { once: true });
      },
      pull(controller) {
        const text = pending.shift();
        if (text !== undefined) controller.enqueue(typeof text === "string" ? encoder.encode(text) : text);
        else if (then === "break") controller.error(new TypeError("terminated"));
        else if (then === "end") controller.close();
        else return new Promise(() => {});
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream", "x-request-id": "r-1", ...headers } });
  };
}

export const refused = () => {
  throw new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED") });
};

export const status =
  (code, body = null, headers = {}) =>
  () =>
    new Response(body === null ? null : JSON.stringify(body), { status: code, headers });

export const failed = (code, error, headers) => status(code, { error }, headers);

/** Return the server-sent event of one chunk whose text is its number. */
export function chunk(number, attempt = 1, text = `${number} `) {
  return `id: ${attempt}-${number}\ndata: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text } }] })}\n\n`;
}

export const chunks = (first, last, attempt = 1) =>
  Array.from({ length: last - first + 1 }, (_, index) => chunk(first + index, attempt));

export const FINISH = `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}\n\n`;
export const DONE = "data: [DONE]\n\n";
export const frame = (error) => `data: ${JSON.stringify({ error })}\n\n`;
