import type { Connection } from "./connection.js";
import {
  ConnectionError,
  type ErrorType,
  failureOf,
  IntegrityError,
  LifecycleError,
  RequestFailedError,
} from "./errors.js";
import { isLast, isObject, isUsage, parse, textOf } from "./event_data.js";
import { type EventId, formatEventId, parseEventId } from "./event_id.js";
import { EventParser, type ServerSentEvent } from "./event_parser.js";
import { Position } from "./position.js";
import type { Call, Transport } from "./transport.js";
import type { Tries } from "./tries.js";
import type { RequestRecord, StreamEvent } from "./types.js";

export interface ReadOptions {
  /** Ends the stream: the iteration throws the signal's reason. */
  signal?: AbortSignal;
  /**
   * What an abort, or leaving the loop early, does to the request: `cancel` ends it, `leave` only closes the
   * connection. By default `stream` cancels, and `resume` leaves.
   */
  onAbort?: "cancel" | "leave";
  /** How long a replica may send nothing before the connection counts as lost; 45 s, that is three keepalives. */
  silenceTimeoutMs?: number;
}

const SILENCE_MS = 45_000;
const CANCEL_MS = 5_000;
const DONE = "[DONE]";
/** The errors of a stream whose request may continue. */
const OF_THE_REPLICA = new Set<ErrorType>(["frontend_lost", "unavailable", "slow_consumer"]);
const NO_EVENT = /^no event (\d+-\d+)$/;

/**
 * The events of one request, from whatever replica can be reached: each once, in their order, without a gap. It can be
 * iterated once. It ends when the request has completed, and throws otherwise:
 *
 * - ResponseError when a replica refuses the call, or the request fails before its first event;
 * - RequestFailedError when the request fails or is cancelled later;
 * - ConnectionError when no replica could be reached and no retries are left;
 * - IntegrityError when a replica sends a gap, a repeat, or an event that cannot be read.
 */
export class EventStream<Data> implements AsyncIterable<StreamEvent<Data>> {
  #requestId: string;
  readonly #position: Position;
  readonly #tries: Tries;
  readonly #silenceMs: number;
  readonly #events: AsyncGenerator<StreamEvent<Data>, void, undefined>;
  #cancelling: Promise<void> | null = null;
  #isAdmitted: boolean;
  #isRewound = false; // the connection of now brings the last event again
  #isSilent = false; // such a connection has ended in order, and has not said how the request has ended
  #isUsageDue: boolean;
  #envelope: object = {}; // of the last chunk

  /** `call` starts the request; without it the stream is read behind `after`. */
  constructor(
    private readonly transport: Transport,
    requestId: string,
    private readonly call: Call | null,
    after: EventId,
    private readonly options: ReadOptions,
  ) {
    this.#requestId = requestId;
    this.#position = new Position(after);
    this.#tries = transport.tries(options.signal);
    this.#silenceMs = options.silenceTimeoutMs ?? SILENCE_MS;
    this.#isAdmitted = call === null;
    this.#isUsageDue = call !== null && asksForUsage(call.body);
    this.#events = this.#run();
  }

  /** The request's id. Until a replica has answered it is the one that this client proposes. */
  get requestId(): string {
    return this.#requestId;
  }

  /** The id of the last event that was delivered, for `resume`; null before the first. */
  get lastEventId(): string | null {
    const { last } = this.#position;
    return last.number > 0 ? formatEventId(last) : null;
  }

  [Symbol.asyncIterator](): AsyncGenerator<StreamEvent<Data>, void, undefined> {
    return this.#events;
  }

  /** Read what is left of the stream and return its text (of the first choice). Throws as the iteration does. */
  async text(): Promise<string> {
    const texts: string[] = [];
    for await (const event of this) texts.push(textOf(event));
    return texts.join("");
  }

  async *#run(): AsyncGenerator<StreamEvent<Data>, void, undefined> {
    const { signal } = this.options;
    signal?.throwIfAborted();
    const cancel = () => void this.#leave(); // at once, whatever the reader of the events is busy with
    signal?.addEventListener("abort", cancel, { once: true });
    let hasEnded = false;
    try {
      yield* this.#follow();
      hasEnded = true;
    } catch (error) {
      hasEnded = !signal?.aborted;
      if (!hasEnded) throw signal?.reason;
      if (error instanceof LifecycleError) {
        if (this.#isAdmitted) error.requestId = this.#requestId; // not that of the call that has failed
        error.requestId ??= this.#requestId;
        error.lastEventId ??= this.lastEventId;
      }
      throw error;
    } finally {
      signal?.removeEventListener("abort", cancel);
      if (!hasEnded) await this.#leave();
    }
  }

  /** Read one connection after the other, until the end of the stream. */
  async *#follow(): AsyncGenerator<StreamEvent<Data>, void, undefined> {
    let connection = this.call === null ? await this.#resume() : await this.#start(this.call);
    while (connection !== null) {
      try {
        if (yield* this.#read(connection)) return yield* this.#missingUsage();
        this.#isSilent = this.#isRewound;
        throw new ConnectionError(`${connection.replica} closed the stream before its end`);
      } catch (failure) {
        if (!(failure instanceof ConnectionError) && !(await this.#goesOn(failure))) throw failure;
        await this.#tries.failed(connection.replica, failure as LifecycleError);
      } finally {
        connection.close();
      }
      connection = await this.#resume();
    }
  }

  async #start(call: Call): Promise<Connection> {
    const connection = await this.transport.open(call, this.#tries, this.#silenceMs);
    this.#requestId = connection.response.headers.get("x-request-id") ?? this.#requestId;
    this.#isAdmitted = true;
    return connection;
  }

  /** Open the stream behind the last event. Return null if the request has completed and nothing is left to read. */
  async #resume(): Promise<Connection | null> {
    this.#isRewound = false;
    const connection = await this.#openBehind(this.#position.reopen());
    if (connection.response.status !== 204) return connection;
    connection.close();
    if (this.#isSilent) return this.#settle();
    // The request has ended behind this event. Read it again: what has no id follows, and an error if it has failed.
    this.#isRewound = true;
    return this.#openBehind(this.#position.rewind());
  }

  #openBehind(id: EventId): Promise<Connection> {
    const headers: Record<string, string> = id.number > 0 ? { "Last-Event-ID": formatEventId(id) } : {};
    return this.transport.open({ method: "GET", path: `${this.#path}/stream`, headers }, this.#tries, this.#silenceMs);
  }

  /** Return whether only the replica has given up a stream, as when it shuts down, and the request goes on. */
  async #goesOn(failure: unknown): Promise<boolean> {
    if (!(failure instanceof RequestFailedError) || !OF_THE_REPLICA.has(failure.errorType)) return false;
    const record = await this.#record().catch(() => null);
    return record?.status === "queued" || record?.status === "running";
  }

  /** Return null if the record says that the request has completed. Throws RequestFailedError. */
  async #settle(): Promise<null> {
    const record = await this.#record();
    if (record.status === "completed") return null;
    throw new RequestFailedError(record.error_message ?? `The request is ${record.status}`, {
      errorType: record.error_type,
    });
  }

  #record(): Promise<RequestRecord> {
    const { signal } = this.options;
    return this.transport.json({ method: "GET", path: this.#path }, signal ? { signal } : {});
  }

  /** Yield what is new on a connection. Return whether it was read to the end of the stream. */
  async *#read(connection: Connection): AsyncGenerator<StreamEvent<Data>, boolean, undefined> {
    const parser = new EventParser();
    for await (const text of connection.texts()) {
      for (const item of parser.push(text)) {
        this.options.signal?.throwIfAborted();
        if (item.kind === "comment") {
          this.#tries.succeeded();
          const id = parseEventId(NO_EVENT.exec(item.text)?.[1] ?? "");
          if (id !== null) this.#position.skip(id);
          continue;
        }
        if (item.data === DONE) return true;
        const event = this.#take(item);
        if (event === null) continue;
        this.#tries.succeeded();
        yield event;
        if (isLast(event.data)) return true;
      }
    }
    return false;
  }

  /** Return the event, or null if it has been delivered before. Throws RequestFailedError, IntegrityError. */
  #take(item: ServerSentEvent): StreamEvent<Data> | null {
    const id = item.id === null ? null : parseEventId(item.id);
    if (id === null && item.id !== null)
      throw new IntegrityError(`The event id ${JSON.stringify(item.id)} is malformed`);
    const data = parse(item);
    if (id === null && isObject(data) && isObject(data["error"])) throw failureOf(data);
    if (!this.#position.take(id)) return null;
    if (this.#isUsageDue && isObject(data)) this.#noteUsage(data);
    return {
      id: item.id,
      attempt: id?.attempt ?? null,
      number: id?.number ?? null,
      event: item.name,
      data: data as Data,
    };
  }

  #noteUsage(chunk: Record<string, unknown>): void {
    const { id, object, created, model } = chunk;
    this.#envelope = { id, object, created, model };
    this.#isUsageDue = !isUsage(chunk);
  }

  /** Yield the usage that was asked for. Only the connection that has started the request brings it. */
  async *#missingUsage(): AsyncGenerator<StreamEvent<Data>, void, undefined> {
    const usage = this.#isUsageDue ? (await this.#record()).usage : null;
    if (usage === null) return;
    const data = { ...this.#envelope, choices: [], usage } as Data;
    yield { id: null, attempt: null, number: null, event: null, data };
  }

  /** End the request, unless it is to go on without this reader. What cannot be cancelled ends after its grace. */
  async #leave(): Promise<void> {
    if ((this.options.onAbort ?? (this.call === null ? "leave" : "cancel")) === "leave") return;
    const call: Call = { method: "POST", path: `${this.#path}/cancel` };
    this.#cancelling ??= this.transport.json(call, { signal: AbortSignal.timeout(CANCEL_MS) }).then(
      () => undefined,
      () => undefined,
    );
    await this.#cancelling;
  }

  get #path(): string {
    return `/v1/requests/${encodeURIComponent(this.#requestId)}`;
  }
}

function asksForUsage(body: unknown): boolean {
  const options = isObject(body) ? body["stream_options"] : null;
  return isObject(options) && options["include_usage"] === true;
}
