import type { ErrorType } from "./errors.js";

// The objects of the HTTP API, as they are on the wire. Times are seconds since 1970 by Redis's clock; what has not
// happened is null. Fields that a newer server adds are there too.

export type Status = "queued" | "running" | "completed" | "failed" | "cancelled";
export type CancelMode = "kill" | "stop";

/** What is known of one request. */
export interface RequestRecord {
  id: string;
  object: "request";
  model: string;
  endpoint: string;
  request_type: "stream" | "unary";
  status: Status;
  error_type: ErrorType;
  error_message: string | null;
  cancel_requested_at: number | null;
  cancel_reason: string | null;
  cancel_mode: CancelMode | null;
  cancelled_by: string | null;
  cancelled_via: string | null;
  on_disconnect: "cancel" | "continue";
  frontend: string | null;
  worker: string | null;
  attempt: number;
  created_at: number;
  started_at: number | null;
  first_token_at: number | null;
  last_token_at: number | null;
  finished_at: number | null;
  output_tokens: number;
  output_events: number;
  finish_reason: string | null;
  usage: Usage | null;
  owner: string | null;
  /** The id of the request that started this one. */
  parent: string | null;
  /** The application's own. */
  labels: Record<string, string>;
  /** In the queue, as it applied: a lower one starts first. */
  priority: number;
  /** How often it was moved back to the queue for a request of better priority. */
  preemptions: number;
  /** Of a queued request that `get` returns: 1 is next. */
  queue_position?: number;
  /** How long such a request will wait; null where it is not known. */
  estimated_wait_secs?: number | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  [detail: string]: unknown;
}

/** Which requests `requests` lists; all of them without a field. */
export interface RequestFilter {
  status?: Status | "inflight";
  model?: string;
  endpoint?: string;
  frontend?: string;
  worker?: string;
  owner?: string;
}

/** How many requests are inflight in the whole cluster. */
export interface Inflight {
  object: "inflight";
  total: number;
  queued: number;
  running: number;
  groups: {
    model: string;
    endpoint: string;
    request_type: "stream" | "unary";
    queued: number;
    running: number;
    inflight: number;
  }[];
  frontends: { id: string; inflight: number; lease_expires_in_ms: number }[];
  as_of: number;
}

/** The queue of one model. */
export interface ModelQueue {
  model: string;
  queued: number;
  oldest_secs: number;
  /** How many requests started each second, over the last minute. */
  drain_per_sec: number;
  owners: {
    owner: string;
    weight: number;
    queued: number;
    oldest_secs: number;
    /** How long the last of them will wait if nobody else comes; null where it is not known. */
    estimated_wait_secs: number | null;
  }[];
}

/** A frontend or a worker that holds a lease. */
export interface Replica {
  id: string;
  role: "frontend" | "worker";
  host: string;
  pid: number;
  started_at: number;
  lease_expires_in_ms: number;
  state: "starting" | "ready" | "unhealthy" | "paused" | "draining";
  inflight: number;
  models: string[];
  concurrency: number | null;
  url: string | null;
  error?: string;
  endpoints?: Record<string, string>;
}

/** The body of a call. Fields that are not named here reach the engine too. */
export interface ChatCompletionBody {
  model: string;
  messages: { role: string; content?: unknown; [field: string]: unknown }[];
  stream_options?: { include_usage?: boolean };
  [field: string]: unknown;
}

/** One piece of a streamed chat completion, in OpenAI's format. */
export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: ChunkChoice[];
  usage?: Usage | null;
  [field: string]: unknown;
}

export interface ChunkChoice {
  index: number;
  delta: { role?: string; content?: string | null; [field: string]: unknown };
  finish_reason: string | null;
  [field: string]: unknown;
}

/** One event of a stream. Those at the end that no worker wrote (the finish reason, the usage) have no id. */
export interface StreamEvent<Data = ChatCompletionChunk> {
  /** The position to resume behind, `<attempt>-<number>`. */
  id: string | null;
  /** The worker's try at the request, from 1. */
  attempt: number | null;
  /** The number of the event in its stream over all attempts, from 1. */
  number: number | null;
  /** The name in the `event:` line, of endpoints that send one. */
  event: string | null;
  data: Data;
}
