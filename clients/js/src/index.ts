export {
  type CallOptions,
  type CancelOptions,
  type ClientOptions,
  LifecycleClient,
  type StreamOptions,
} from "./client.js";
export type { Fetch } from "./connection.js";
export {
  ConnectionError,
  type ErrorDetails,
  type ErrorType,
  IntegrityError,
  LifecycleError,
  RequestFailedError,
  ResponseError,
} from "./errors.js";
export { textOf } from "./event_data.js";
export { EventStream, type ReadOptions } from "./stream.js";
export type { ApiKey } from "./transport.js";
export type { RetryOptions } from "./tries.js";
export type * from "./types.js";
