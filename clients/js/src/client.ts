import type { Fetch } from "./connection.js";
import { positionAt, START } from "./event_id.js";
import { EventStream, type ReadOptions } from "./stream.js";
import { type ApiKey, Transport } from "./transport.js";
import { Replicas, type RetryOptions } from "./tries.js";
import type {
  CancelMode,
  ChatCompletionBody,
  ChatCompletionChunk,
  Inflight,
  ModelQueue,
  Replica,
  RequestFilter,
  RequestRecord,
} from "./types.js";

export interface ClientOptions extends RetryOptions {
  /** The base URLs of the frontends, for example `http://a:8000`. A call goes to the one that worked last. */
  urls: readonly string[];
  apiKey?: ApiKey;
  /** Replaces the `fetch` of the platform. */
  fetch?: Fetch;
  /** How long a replica may be silent during a call that is no stream; 30 s by default. */
  timeoutMs?: number;
}

export interface StreamOptions extends ReadOptions {
  /** Proposes the request's id; a random one by default. */
  requestId?: string;
  /** Names the call, so that it can be repeated; a random one by default. */
  idempotencyKey?: string;
  /** What becomes of the request once nobody reads it: it ends after the grace, or continues. */
  onDisconnect?: "cancel" | "continue";
  /** How long a request outlives its connection: the time there is to resume it; 30 s by default. */
  disconnectGraceSecs?: number;
  /** Further headers of the call, for example X-Deadline-Secs. */
  headers?: Record<string, string>;
}

export interface CallOptions {
  signal?: AbortSignal;
}

export interface CancelOptions extends CallOptions {
  /** `kill`, the default, ends the request now; `stop` still delivers what was produced. */
  mode?: CancelMode;
  reason?: string;
  /** How long to wait until the worker confirms that the engine has stopped; 0 by default, 30 000 at most. */
  waitMs?: number;
}

const CHAT = "/v1/chat/completions";

/** Starts, resumes, cancels and counts requests, at any of the replicas. All methods throw LifecycleError. */
export class LifecycleClient {
  readonly #transport: Transport;

  constructor({ urls, apiKey, fetch, timeoutMs = 30_000, ...retries }: ClientOptions) {
    const { maxRetries = 8, baseDelayMs = 250, maxDelayMs = 5_000 } = retries;
    const send = fetch ?? ((url, init) => globalThis.fetch(url, init));
    const limits = { maxRetries, baseDelayMs, maxDelayMs };
    this.#transport = new Transport(new Replicas(urls), limits, send, apiKey, timeoutMs);
  }

  /**
   * Start a request and return its events; the call is sent when the iteration begins. `path` names another endpoint
   * than chat completions, such as `/v1/messages`.
   */
  stream(body: ChatCompletionBody, options?: StreamOptions): EventStream<ChatCompletionChunk>;
  stream<Data>(body: object, options: StreamOptions & { path: string }): EventStream<Data>;
  stream<Data>(body: object, options: StreamOptions & { path?: string } = {}): EventStream<Data> {
    const requestId = options.requestId ?? `js-${randomHex()}`;
    const headers: Record<string, string> = {
      ...options.headers,
      "X-Request-Id": requestId,
      "Idempotency-Key": options.idempotencyKey ?? randomHex(),
      "X-Disconnect-Grace-Secs": String(options.disconnectGraceSecs ?? 30),
    };
    if (options.onDisconnect !== undefined) headers["X-On-Disconnect"] = options.onDisconnect;
    const call = { method: "POST", path: options.path ?? CHAT, headers, body: { ...body, stream: true } } as const;
    return new EventStream<Data>(this.#transport, requestId, call, START, options);
  }

  /** Return the events of a request behind `after`, or all of them. Throws TypeError if `after` is malformed. */
  resume<Data = ChatCompletionChunk>(
    requestId: string,
    { after, ...options }: ReadOptions & { after?: string | null } = {},
  ): EventStream<Data> {
    return new EventStream<Data>(this.#transport, requestId, null, positionAt(after), options);
  }

  /**
   * Ask for the end of a request, and return its record. The cancel is confirmed once `status` is `cancelled`. One that
   * has ended before is returned as it is.
   */
  cancel(requestId: string, { mode, reason, waitMs, signal }: CancelOptions = {}): Promise<RequestRecord> {
    const call = {
      method: "POST",
      path: `${pathOf(requestId)}/cancel`,
      body: { mode, reason, wait_ms: waitMs },
    } as const;
    return this.#transport.json(call, { ...(waitMs ? { waitMs } : {}), ...(signal ? { signal } : {}) });
  }

  /** Return the record of a request. */
  get(requestId: string, options: CallOptions = {}): Promise<RequestRecord> {
    return this.#transport.json({ method: "GET", path: pathOf(requestId) }, options);
  }

  /** Yield the records that match, the newest first, and read a page of them when it is needed. */
  async *requests({
    pageSize = 100,
    signal,
    ...filter
  }: RequestFilter & CallOptions & { pageSize?: number } = {}): AsyncGenerator<RequestRecord, void, undefined> {
    for (let after: string | undefined; ;) {
      const path = `/v1/requests${queryOf({ ...filter, limit: pageSize, after })}`;
      const page = await this.#transport.json<{ data: RequestRecord[]; has_more: boolean }>(
        { method: "GET", path },
        signal ? { signal } : {},
      );
      yield* page.data;
      after = page.data.at(-1)?.id;
      if (!page.has_more || after === undefined) return;
    }
  }

  /** Count the inflight requests of the whole cluster, or of one model. */
  inflight({ model, ...options }: { model?: string } & CallOptions = {}): Promise<Inflight> {
    return this.#transport.json({ method: "GET", path: `/v1/inflight${queryOf({ model })}` }, options);
  }

  /** Return the frontends and workers that hold a lease. */
  async replicas(options: CallOptions = {}): Promise<Replica[]> {
    const call = { method: "GET", path: "/v1/replicas" } as const;
    return (await this.#transport.json<{ data: Replica[] }>(call, options)).data;
  }

  /** Return what waits, by model and owner, and for how long it will. */
  async queue(options: CallOptions = {}): Promise<ModelQueue[]> {
    const call = { method: "GET", path: "/v1/queue" } as const;
    return (await this.#transport.json<{ data: ModelQueue[] }>(call, options)).data;
  }

  /**
   * Tell a replica to finish what it has and then to leave, and return it. It follows within a heartbeat. For a day
   * after it has gone this throws a LifecycleError of status 404, whose message says if it `has left`, or was lost.
   */
  drainReplica(replicaId: string, options: CallOptions = {}): Promise<Replica> {
    return this.#instruct(replicaId, "drain", options);
  }

  /** Tell a worker to take nothing new, and return it; its `state` is `paused` once it has followed. */
  pauseReplica(replicaId: string, options: CallOptions = {}): Promise<Replica> {
    return this.#instruct(replicaId, "pause", options);
  }

  /** Tell a paused worker to take requests again, and return it. */
  resumeReplica(replicaId: string, options: CallOptions = {}): Promise<Replica> {
    return this.#instruct(replicaId, "resume", options);
  }

  #instruct(replicaId: string, action: "drain" | "pause" | "resume", options: CallOptions): Promise<Replica> {
    const path = `/v1/replicas/${encodeURIComponent(replicaId)}/${action}`;
    return this.#transport.json({ method: "POST", path }, options);
  }
}

function pathOf(requestId: string): string {
  return `/v1/requests/${encodeURIComponent(requestId)}`;
}

function queryOf(fields: Record<string, string | number | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined) query.set(name, String(value));
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

/** Return 128 random bits. Math.random is for Node.js 18, which has no global `crypto`. */
function randomHex(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto) globalThis.crypto.getRandomValues(bytes);
  else bytes.forEach((_, index) => (bytes[index] = Math.floor(Math.random() * 256)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
