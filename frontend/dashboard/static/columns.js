// Define the columns of the tables.

import { duration, shortDuration, number, short } from "./format.js";
import { phase, silence } from "./state.js";

const LONG_SILENCE_SECS = 10;

const id = { name: "request", value: (r) => r.id, full: (r) => r.id, rowHeader: true };
const model = { name: "model", value: (r) => r.model, full: (r) => r.model };
const tokens = { name: "tokens", value: (r) => number(r.output_tokens), sort: (r) => r.output_tokens, number: true };
const frontend = { name: "frontend", value: (r) => short(r.frontend), full: (r) => r.frontend };
const owner = { name: "owner", value: (r) => r.owner ?? "", full: (r) => r.owner, ifAny: true };
const worker = { name: "worker", value: (r) => short(r.worker), full: (r) => r.worker };

export const inflight = [
  { name: "age", value: (r, now) => duration(now - r.created_at), sort: (r, now) => now - r.created_at, number: true },
  id,
  model,
  owner,
  { name: "phase", value: phase, mark: phase },
  tokens,
  {
    name: "last token", number: true,
    value: (r, now) => duration(silence(r, now)),
    sort: (r, now) => silence(r, now) ?? -1,
    warn: (r, now) => silence(r, now) > LONG_SILENCE_SECS,
  },
  frontend,
  worker,
  { name: "readers", value: (r) => number(r.readers), sort: (r) => r.readers, number: true },
];

export const queue = [
  { name: "model", value: (r) => r.model, full: (r) => r.model, rowHeader: true },
  { name: "owner", value: (r) => r.owner || "–", full: (r) => r.owner },
  { name: "weight", value: (r) => String(r.weight), sort: (r) => r.weight, number: true },
  { name: "queued", value: (r) => number(r.queued), sort: (r) => r.queued, number: true },
  { name: "oldest", value: (r) => duration(r.oldest_secs), sort: (r) => r.oldest_secs, number: true },
  {
    name: "wait", number: true,
    value: (r) => (r.estimated_wait_secs === null ? "" : duration(r.estimated_wait_secs)),
    sort: (r) => r.estimated_wait_secs ?? -1,
    full: () => "How long the last of them will wait, by the estimate, if nobody else comes.",
  },
  { name: "starts/s", value: (r) => r.drain_per_sec.toFixed(1), sort: (r) => r.drain_per_sec, number: true, full: () => "Of all owners, over the last minute." },
];

const load = (r) => (r.concurrency ? `${number(r.inflight)} of ${number(r.concurrency)}` : number(r.inflight ?? 0));

function heartbeat(r, now) {
  if (r.gone_at) return `gone ${duration(now - r.gone_at)} ago`;
  return `${Math.max(0, now - r.heartbeat_at).toFixed(1)} s ago`;
}

const STATES = {
  starting: "The worker loads its engine and takes nothing yet.",
  unhealthy: "The engine cannot serve. The worker takes nothing new until a probe of it succeeds.",
  paused: "An operator has paused the worker. It takes nothing new until it is resumed.",
  draining: "It takes nothing new, finishes what it has, and then leaves.",
  late: "Two heartbeats are missing.",
  dead: "It was lost, or left before it had finished.",
  left: "It finished what it had, and left.",
};

/** Return the tooltip of a replica's state. */
const explain = (state, error) => `${STATES[state] ?? ""}${state === "unhealthy" && error ? ` Its last error: ${error}` : ""}`;

export const replicas = (lateAfterSecs, now) => {
  const state = (r) => (!r.gone_at && now() - r.heartbeat_at > lateAfterSecs() ? "late" : r.state);
  return [
    { name: "replica", value: (r) => r.id, full: (r) => r.id, rowHeader: true },
    { name: "state", value: (r) => (state(r) === "unhealthy" && r.error ? `unhealthy: ${r.error}` : state(r)), mark: state, full: (r) => explain(state(r), r.error) },
    { name: "heartbeat", value: heartbeat, sort: (r, at) => at - (r.gone_at ?? r.heartbeat_at), number: true },
    { name: "load", value: load, sort: (r) => r.inflight ?? 0, number: true },
    { name: "models", value: (r) => r.models.join(", "), full: (r) => r.models.join(", ") },
    { name: "host", value: (r) => (r.host ? `${r.host}:${r.pid}` : "") },
    { name: "up", value: (r, at) => (r.started_at && !r.gone_at ? duration(at - r.started_at) : ""), sort: (r) => -(r.started_at ?? 0), number: true },
  ];
};

/** Return why a request ended with its outcome. */
function reason(r) {
  if (r.status === "completed") return r.finish_reason ?? "";
  if (r.status === "cancelled") {
    const why = r.cancel_reason ?? r.error_message ?? "";
    return /^(owner|operator|parent):/.test(r.cancelled_by ?? "") ? `${why} (${r.cancelled_by})` : why;
  }
  return r.error_message ? `${r.error_type}: ${r.error_message}` : r.error_type;
}

export const finished = [
  { name: "ended", value: (r, now) => `${duration(now - r.finished_at)} ago`, sort: (r, now) => now - r.finished_at, number: true },
  id,
  model,
  owner,
  { name: "outcome", value: (r) => r.status, mark: (r) => r.status },
  { name: "reason", value: reason, full: reason },
  tokens,
  { name: "took", value: (r) => shortDuration(r.finished_at - r.created_at), sort: (r) => r.finished_at - r.created_at, number: true },
  worker,
];
