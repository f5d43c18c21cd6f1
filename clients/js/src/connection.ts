import { ConnectionError } from "./errors.js";

/** What the `fetch` of a browser or of Node.js does; an application may bring its own. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/**
 * One HTTP exchange, from the call to the last byte of its response. It ends by itself when the server is silent for
 * `silenceMs`, and when the signal is aborted; all calls reject then.
 */
export class Connection {
  readonly #controller = new AbortController();
  readonly #abort = () => this.close(this.signal?.reason);
  #response: Response | null = null;

  private constructor(
    readonly replica: string,
    private readonly silenceMs: number,
    private readonly signal: AbortSignal | undefined,
  ) {
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort, { once: true });
  }

  /** Send the call and wait for the head of the response. Throws ConnectionError, or the signal's reason. */
  static async open(
    fetch: Fetch,
    replica: string,
    path: string,
    init: RequestInit,
    { silenceMs, signal }: { silenceMs: number; signal?: AbortSignal | undefined },
  ): Promise<Connection> {
    const connection = new Connection(replica, silenceMs, signal);
    const call = fetch(replica + path, { ...init, signal: connection.#controller.signal });
    connection.#response = await connection.#bounded(call);
    return connection;
  }

  get response(): Response {
    return this.#response as Response;
  }

  /** Read the body as texts, until its end. Throws ConnectionError when it breaks, or the signal's reason. */
  async *texts(): AsyncGenerator<string, void, undefined> {
    const reader = this.response.body?.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const read = await this.#bounded(reader?.read() ?? Promise.resolve({ done: true as const, value: undefined }));
      if (read.done) return;
      yield decoder.decode(read.value, { stream: true });
    }
  }

  /** Read the whole body. Throws as `texts` does. */
  async text(): Promise<string> {
    const texts: string[] = [];
    for await (const text of this.texts()) texts.push(text);
    return texts.join("");
  }

  /** End the exchange; whatever still waits for it rejects. */
  close(reason?: unknown): void {
    this.signal?.removeEventListener("abort", this.#abort);
    this.#controller.abort(reason);
  }

  /** Wait for a part of the exchange for at most `silenceMs`, and not longer than until it is closed. */
  async #bounded<T>(part: Promise<T>): Promise<T> {
    const closing = this.#controller.signal;
    const silence = new ConnectionError(`${this.replica} was silent for ${this.silenceMs} ms`);
    const timer = setTimeout(() => this.close(silence), this.silenceMs);
    let stop: (() => void) | undefined;
    try {
      return await new Promise<T>((resolve, reject) => {
        stop = () => reject(closing.reason);
        closing.addEventListener("abort", stop, { once: true });
        part.then(resolve, reject);
        if (closing.aborted) stop();
      });
    } catch (failure) {
      const reason: unknown = closing.aborted ? closing.reason : failure;
      this.close(reason);
      if (this.signal?.aborted || reason instanceof ConnectionError) throw reason;
      throw new ConnectionError(`The connection to ${this.replica} broke: ${messageOf(failure)}`, { cause: failure });
    } finally {
      clearTimeout(timer);
      if (stop) closing.removeEventListener("abort", stop);
    }
  }
}

function messageOf(failure: unknown): string {
  if (!(failure instanceof Error)) return String(failure);
  return failure.cause instanceof Error ? `${failure.message}: ${failure.cause.message}` : failure.message;
}
