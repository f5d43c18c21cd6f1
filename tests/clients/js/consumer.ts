// Everything of the package, as an application uses it. It is compiled, and not run.

import {
  type CancelOptions,
  type ChatCompletionChunk,
  type ClientOptions,
  ConnectionError,
  type EventStream,
  IntegrityError,
  LifecycleClient,
  LifecycleError,
  type ReadOptions,
  RequestFailedError,
  type RequestRecord,
  ResponseError,
  type StreamEvent,
  type StreamOptions,
  textOf,
} from "lifecycle-tracker-client";

const options: ClientOptions = { urls: ["http://a"], apiKey: async () => "k", fetch, maxRetries: 3, timeoutMs: 1_000 };
const client = new LifecycleClient(options);
const body = { model: "m", messages: [{ role: "user", content: "hi" }], temperature: 0, echo_repeat: 2 };

const reading: ReadOptions = { signal: new AbortController().signal, onAbort: "leave", silenceTimeoutMs: 1 };
const started: StreamOptions = { ...reading, requestId: "r", idempotencyKey: "k", onDisconnect: "continue" };
const stream: EventStream<ChatCompletionChunk> = client.stream(body, { ...started, disconnectGraceSecs: 5 });
for await (const event of stream) {
  const { id, attempt, number, data }: StreamEvent = event;
  const text: string = textOf(event) + (data.choices[0]?.delta.content ?? "");
  void [id?.length, attempt?.toFixed(), number?.toFixed(), text];
}
const position: string | null = stream.lastEventId;
const whole: string = await client.resume(stream.requestId, { after: position, onAbort: "cancel" }).text();

interface Message {
  type: string;
}
for await (const { event, data } of client.stream<Message>({ model: "m" }, { path: "/v1/messages" }))
  void [event, data.type];

const cancelling: CancelOptions = { mode: "stop", reason: "enough", waitMs: 1_000 };
const record: RequestRecord = await client.cancel("r", cancelling);
for await (const { id, status } of client.requests({ status: "inflight", pageSize: 10 })) void [id, status];
void [
  (await client.inflight({ model: "m" })).queued,
  (await client.replicas())[0]?.state,
  (await client.get("r")).usage,
];
void [whole, record];

try {
  await client.get("r");
} catch (error) {
  if (error instanceof LifecycleError) void [error.code, error.type, error.status, error.requestId, error.retryAfterMs];
  void [ConnectionError, IntegrityError, RequestFailedError, ResponseError].some((kind) => error instanceof kind);
  if (error instanceof RequestFailedError && error.errorType === "cancelled") void error.lastEventId;
}

// @ts-expect-error a client needs replicas
new LifecycleClient({});
// @ts-expect-error a chat needs messages
client.stream({ model: "m" });
// @ts-expect-error there is no such mode
await client.cancel("r", { mode: "pause" });
// @ts-expect-error there is no such status
client.requests({ status: "done" });
