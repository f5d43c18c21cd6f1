/** The closed list of why a call or a request failed; the empty text where the server did not say. */
export type ErrorType =
  | ""
  | "validation"
  | "not_found"
  | "overload"
  | "unavailable"
  | "cancelled"
  | "response_timeout"
  | "queue_timeout"
  | "first_token_timeout"
  | "deadline"
  | "worker_lost"
  | "frontend_lost"
  | "state_lost"
  | "slow_consumer"
  | "internal";

export interface ErrorDetails {
  /** The HTTP status, or the status that an error frame stands for; null without a response. */
  status?: number | null;
  /** The code of the server or of an engine's upstream, for example `model_not_found`. */
  code?: string | number | null;
  /** The kind of the error, for example `invalid_request_error`. */
  type?: string | null;
  /** The parameter that is wrong. */
  param?: string | null;
  errorType?: ErrorType;
  requestId?: string | null;
  /** How long the server asks to wait before the call is repeated, in milliseconds. */
  retryAfterMs?: number | null;
  /** The position behind which `resume` continues; null if no event was read. */
  lastEventId?: string | null;
  cause?: unknown;
}

/** The base of all errors of this package. What is not known is null. */
export class LifecycleError extends Error {
  override readonly name: string = "LifecycleError";
  readonly status: number | null;
  readonly code: string | number | null;
  readonly type: string | null;
  readonly param: string | null;
  readonly errorType: ErrorType;
  requestId: string | null;
  readonly retryAfterMs: number | null;
  lastEventId: string | null;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.status = details.status ?? null;
    this.code = details.code ?? null;
    this.type = details.type ?? null;
    this.param = details.param ?? null;
    this.errorType = details.errorType ?? "";
    this.requestId = details.requestId ?? null;
    this.retryAfterMs = details.retryAfterMs ?? null;
    this.lastEventId = details.lastEventId ?? null;
  }
}

/** Thrown when a replica answers a call with an HTTP error. */
export class ResponseError extends LifecycleError {
  override readonly name = "ResponseError";
}

/** Thrown when a request ends badly after its stream began; `errorType` is `cancelled` if somebody cancelled it. */
export class RequestFailedError extends LifecycleError {
  override readonly name = "RequestFailedError";
}

/** Thrown when a replica cannot be reached, or its response breaks, and no retries are left. */
export class ConnectionError extends LifecycleError {
  override readonly name = "ConnectionError";
}

/** Thrown when a stream had a gap, a repeat or an event that cannot be read. Nothing wrong was delivered. */
export class IntegrityError extends LifecycleError {
  override readonly name = "IntegrityError";
}

const RETRYABLE = new Set([408, 425, 429, 500, 502, 503, 504]);
const LONGEST_TEXT = 300;

/** Return the error that a replica, or a proxy before it, has answered; `text` is the body. */
export function responseErrorOf({ status, headers }: Response, text: string): ResponseError {
  const body = parseObject(text);
  return new ResponseError(messageOf(body) ?? `HTTP ${status}: ${text.slice(0, LONGEST_TEXT).trim()}`, {
    ...detailsOf(body),
    status,
    requestId: headers.get("x-request-id"),
    retryAfterMs: retryAfterMs(headers.get("retry-after")),
  });
}

/** Return whether repeating the identical call may succeed. */
export function isRetryable({ status, headers }: Response): boolean {
  return RETRYABLE.has(status) && headers.get("x-should-retry") !== "false";
}

/** Return the error of an error frame, which is an object with the field `error`. */
export function failureOf(frame: Body): RequestFailedError {
  const details = detailsOf(frame);
  const status = typeof details.code === "number" ? details.code : null;
  return new RequestFailedError(messageOf(frame) ?? "The request failed", { ...details, status });
}

interface Body {
  error?: { message?: unknown; type?: unknown; code?: unknown; param?: unknown; error_type?: unknown };
}

function parseObject(text: string): Body {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

function messageOf(body: Body): string | null {
  return typeof body.error?.message === "string" ? body.error.message : null;
}

function detailsOf({ error = {} }: Body): ErrorDetails {
  const { type, code, param, error_type } = error ?? {};
  return {
    type: typeof type === "string" ? type : null,
    code: typeof code === "string" || typeof code === "number" ? code : null,
    param: typeof param === "string" ? param : null,
    errorType: typeof error_type === "string" ? (error_type as ErrorType) : "",
  };
}

/** Convert a Retry-After of seconds or of a date. */
function retryAfterMs(value: string | null): number | null {
  if (value === null) return null;
  const ms = /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : null;
}
