// Keep the state of the cluster up to date with snapshots and deltas. All times are by Redis's clock, since the clock of
// this computer may be wrong.

const HISTORY_SECS = 300;

export class ClusterState {
  facts = {};
  history = [];
  tables = { queue: new Map(), replicas: new Map(), inflight: new Map(), finished: new Map() };
  #receivedAt = 0;

  get empty() {
    return this.facts.as_of === undefined;
  }

  get ageSecs() {
    return (performance.now() - this.#receivedAt) / 1000;
  }

  apply({ cluster, requests }) {
    if (cluster) {
      this.#receivedAt = performance.now();
      this.history = cluster.kind === "snapshot" ? cluster.history : [...this.history, cluster.point];
      const oldest = cluster.as_of - HISTORY_SECS;
      this.history = this.history.filter(([at]) => at >= oldest);
    }
    for (const part of [cluster, requests]) if (part) this.#merge(part);
  }

  #merge({ kind, history, ...fields }) {
    for (const [name, value] of Object.entries(fields)) {
      const table = this.tables[name];
      if (!table) {
        this.facts[name] = value;
        continue;
      }
      if (kind === "snapshot") table.clear();
      for (const id of value.gone) table.delete(id);
      for (const row of value.set) table.set(row.id, { ...table.get(row.id), ...row });
    }
  }
}

/** Return what a request is doing now, as one word. */
export function phase(request) {
  if (request.finished_at) return request.status;
  if (request.cancel_requested_at !== null) return "cancelling";
  if (request.status === "queued") return request.attempt > 0 ? "retrying" : "queued";
  return request.output_tokens > 0 ? "streaming" : "starting";
}

/** Return the seconds since the last token, or since the start if there is none; null if the request is not running. */
export function silence(request, now) {
  const since = Math.max(request.last_token_at ?? 0, request.started_at ?? 0);
  return request.status === "running" && since > 0 ? Math.max(0, now - since) : null;
}
