import { Connection, type Fetch } from "./connection.js";
import { ConnectionError, isRetryable, responseErrorOf } from "./errors.js";
import { type Replicas, type RetryOptions, Tries } from "./tries.js";

/** A key, or a function that returns one, which is called before each HTTP call. */
export type ApiKey = string | (() => string | Promise<string>);

export interface Call {
  method: "GET" | "POST";
  path: string;
  headers?: Record<string, string>;
  body?: unknown;
}

/** Sends calls to the replicas, with the API key, retries and bounds. Each of its calls can be repeated safely. */
export class Transport {
  constructor(
    readonly replicas: Replicas,
    private readonly retries: Required<RetryOptions>,
    private readonly fetch: Fetch,
    private readonly apiKey: ApiKey | undefined,
    private readonly timeoutMs: number,
  ) {}

  /** Return the tries of a new call or stream. */
  tries(signal?: AbortSignal): Tries {
    return new Tries(this.replicas, this.retries, signal);
  }

  /** Return the JSON of the answer. Throws ResponseError, ConnectionError, or the signal's reason. */
  async json<T>(call: Call, { waitMs = 0, signal }: { waitMs?: number; signal?: AbortSignal } = {}): Promise<T> {
    const tries = this.tries(signal);
    for (;;) {
      const connection = await this.open(call, tries, this.timeoutMs + waitMs);
      try {
        return parse<T>(connection.replica, await connection.text());
      } catch (failure) {
        if (!(failure instanceof ConnectionError)) throw failure;
        await tries.failed(connection.replica, failure);
      } finally {
        connection.close();
      }
    }
  }

  /** Return the connection to the first replica that answers well. Throws as `json` does. */
  async open(call: Call, tries: Tries, silenceMs: number): Promise<Connection> {
    const limits = { silenceMs, signal: tries.signal };
    for (;;) {
      const replica = this.replicas.preferred;
      try {
        const connection = await Connection.open(this.fetch, replica, call.path, await this.#init(call), limits);
        const { response } = connection;
        if (response.ok) return connection;
        const error = responseErrorOf(response, await connection.text());
        connection.close();
        if (!isRetryable(response)) throw error;
        await tries.failed(replica, error);
      } catch (failure) {
        if (!(failure instanceof ConnectionError)) throw failure;
        await tries.failed(replica, failure);
      }
    }
  }

  async #init({ method, headers, body }: Call): Promise<RequestInit> {
    const apiKey = typeof this.apiKey === "function" ? await this.apiKey() : this.apiKey;
    return {
      method,
      headers: {
        ...(apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` }),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      cache: "no-store",
    };
  }
}

function parse<T>(replica: string, text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new ConnectionError(`${replica} answered with something that is not JSON`, { cause });
  }
}
