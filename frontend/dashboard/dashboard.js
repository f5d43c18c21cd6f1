// Shows the whole cluster, from what this frontend's JSON calls say.
//
// Ids, models and messages come from strangers: they reach the page as text, never as HTML.
// Times are by Redis's clock, `as_of` of /v1/inflight; this computer's clock may be wrong.

const POLL_MS = 1000;
const SLOWEST_POLL_MS = 15_000;
const STALE_MS = 5000;
const CALL_TIMEOUT_MS = 5000;
const CANCEL_WAIT_MS = 5000;
const NOTICES = 5;
const LONGEST_TEXT = 200_000;

const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(secs) {
  if (secs === null) return "";
  const whole = Math.max(0, Math.floor(secs));
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 10) return `${Math.max(0, secs).toFixed(1)} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
}

// ---- calls

class Problem extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function call(path, { timeoutMs = CALL_TIMEOUT_MS, ...options } = {}) {
  let answer, body;
  try {
    answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(timeoutMs), ...options });
    body = await answer.json();
  } catch {
    throw new Problem(answer ? `an answer that is not JSON (${answer.status})` : "no answer", answer?.status);
  }
  if (!answer.ok) throw new Problem(body.error?.message ?? "no reason given", answer.status, body.error?.code);
  return { status: answer.status, body };
}

const requestPath = (id, what) => `v1/requests/${encodeURIComponent(id)}/${what}`;

// ---- tables

// A row stays the same element for as long as its item is listed, so that focus and clicks are not lost.
class Table {
  #rows = new Map();
  #columns;
  #actions;
  #body = element("tbody");
  #refuge;

  constructor(id, columns, actions = []) {
    this.#columns = columns;
    this.#actions = actions;
    this.#refuge = $(`${id}-title`);
    const heads = columns.map(({ name, number }) =>
      element("th", { scope: "col", role: "columnheader", textContent: name, className: number ? "number" : "" }),
    );
    if (actions.length) heads.push(element("th", { scope: "col", role: "columnheader", ariaLabel: "Actions" }));
    const table = $(id);
    table.role = "table"; // said aloud, because a narrow page shows rows as cards and that undoes the meaning
    this.#body.role = "rowgroup";
    table.append(element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), this.#body);
  }

  show(items, now) {
    const listed = new Set(items.map((item) => item.id));
    for (const [id, row] of this.#rows) {
      if (listed.has(id)) continue;
      if (row.element.contains(document.activeElement)) this.#refuge.focus();
      row.element.remove();
      this.#rows.delete(id);
    }
    items.forEach((item, index) => {
      const row = this.#rows.get(item.id) ?? this.#newRow(item.id);
      row.item = item;
      this.#columns.forEach(({ value, mark }, column) => {
        write(row.cells[column], value(item, now));
        if (mark) row.cells[column].dataset.mark = mark(item);
      });
      this.#actions.forEach(({ disabled }, action) => {
        if (disabled) row.buttons[action].disabled = disabled(item);
      });
      const there = this.#body.children[index] ?? null;
      if (there !== row.element) this.#body.insertBefore(row.element, there);
    });
  }

  #newRow(id) {
    const row = {};
    row.cells = this.#columns.map(({ name, number, heads }) => {
      const cell = heads
        ? element("th", { scope: "row", role: "rowheader" })
        : element("td", { role: "cell", className: number ? "number" : "" });
      cell.dataset.label = name;
      return cell;
    });
    row.buttons = this.#actions.map(({ name, run }) =>
      element("button", {
        type: "button", textContent: name, ariaLabel: `${name} ${id}`, onclick: (event) => run(row.item, event.target),
      }),
    );
    row.element = element("tr", { role: "row" }, ...row.cells);
    if (row.buttons.length) row.element.append(element("td", { role: "cell", className: "actions" }, ...row.buttons));
    this.#rows.set(id, row);
    return row;
  }
}

// ---- cancelling

const cancelling = new Set();

function askToCancel(item) {
  const dialog = $("cancel");
  $("cancel-id").textContent = item.id;
  dialog.returnValue = "keep";
  dialog.onclose = () => {
    if (dialog.returnValue === "cancel") cancel(item.id);
  };
  dialog.showModal();
}

async function cancel(id) {
  const notice = element("li");
  const say = (words) => write(notice, `${id}: ${words}`);
  $("notices").prepend(notice);
  while ($("notices").children.length > NOTICES) $("notices").lastChild.remove();
  say("cancel requested …");
  cancelling.add(id);
  showInflight();
  const since = performance.now();
  try {
    const { status, body } = await call(requestPath(id, "cancel"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ wait_ms: CANCEL_WAIT_MS, reason: "Cancelled from the dashboard" }),
      timeoutMs: CANCEL_WAIT_MS + CALL_TIMEOUT_MS,
    });
    const took = duration((performance.now() - since) / 1000);
    if (status === 202) say(`cancel requested → not confirmed after ${took}; its engine has not stopped yet`);
    else if (body.status === "cancelled") say(`cancel requested → confirmed after ${tookToStop(body) ?? took}`);
    else say(`had ended already: ${body.status}`);
  } catch (problem) {
    say(`the cancel failed: ${problem.message}`);
  } finally {
    cancelling.delete(id);
    showInflight();
  }
}

function tookToStop({ cancel_requested_at: asked, finished_at: ended }) {
  return asked === null || ended === null ? null : `${Math.max(0, (ended - asked) * 1000).toFixed(0)} ms`;
}

// ---- watching

let source = null;
let opener = null;

function watch(item, button) {
  closeWatch();
  opener = button;
  const text = document.createTextNode("");
  const pane = $("watch-text");
  const say = (words) => write($("watch-status"), words);
  let pending = "";
  const flush = () => {
    const follows = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 4;
    text.appendData(pending);
    pending = "";
    if (text.length > LONGEST_TEXT) text.replaceData(0, text.length - LONGEST_TEXT, "… ");
    if (follows) pane.scrollTop = pane.scrollHeight;
  };
  pane.replaceChildren(text);
  $("watch-id").textContent = item.id;
  $("watch").hidden = false;
  $("watch-close").focus({ preventScroll: true });
  say("Connecting …");

  let ending = "";
  const opened = new EventSource(requestPath(item.id, "stream")); // reconnects by itself, behind the last token it has
  source = opened;
  opened.onopen = () => say("Live.");
  opened.onmessage = ({ data }) => {
    if (data === "[DONE]") {
      opened.close();
      say(`Ended: ${ending || "finished"}.`);
      return;
    }
    const { error, choices } = JSON.parse(data);
    if (error) ending = `${error.error_type}, ${error.message}`;
    const choice = choices?.[0];
    if (choice?.finish_reason) ending = choice.finish_reason;
    const token = choice?.delta?.content ?? choice?.text ?? "";
    if (token && !pending) setTimeout(flush, 50);
    pending += token;
  };
  opened.onerror = () => {
    const over = opened.readyState === EventSource.CLOSED;
    say(over ? "It cannot be read: it has expired, or this frontend cannot serve it now." : "Connection lost; trying again …");
  };
}

function closeWatch() {
  source?.close();
  source = null;
  $("watch").hidden = true;
  if (opener?.isConnected) opener.focus();
  opener = null;
}

$("watch-close").onclick = closeWatch;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && source && !$("cancel").open) closeWatch();
});

// ---- what is shown

const id = { name: "id", value: (r) => r.id, heads: true };
const model = { name: "model", value: (r) => r.model };
const tokens = { name: "tokens", value: (r) => String(r.output_tokens), number: true };
const worker = { name: "worker", value: (r) => r.worker ?? "" };
const isCancelling = (r) => r.cancel_requested_at !== null || cancelling.has(r.id);

function silence(r, now) {
  const since = r.last_token_at ?? r.started_at;
  return r.status === "running" && since !== null ? now - since : null;
}

const inflightTable = new Table(
  "inflight",
  [
    { name: "age", value: (r, now) => duration(now - r.created_at), number: true },
    id,
    model,
    {
      name: "status",
      value: (r) => (isCancelling(r) ? `${r.status}, cancelling` : r.status),
      mark: (r) => (isCancelling(r) ? "cancelling" : r.status),
    },
    tokens,
    { name: "last token", value: (r, now) => duration(silence(r, now)), number: true },
    { name: "frontend", value: (r) => r.frontend ?? "" },
    worker,
    { name: "attempt", value: (r) => String(r.attempt), number: true },
  ],
  [
    { name: "Watch", run: watch },
    { name: "Cancel", run: askToCancel, disabled: (r) => cancelling.has(r.id) },
  ],
);

const replicaTable = new Table("replicas", [
  id,
  { name: "role", value: (r) => r.role },
  { name: "state", value: (r) => r.state, mark: (r) => r.state },
  { name: "lease", value: (r) => duration(r.lease_expires_in_ms / 1000), number: true },
  { name: "inflight", value: (r) => (r.concurrency ? `${r.inflight} of ${r.concurrency}` : String(r.inflight)), number: true },
  { name: "models", value: (r) => r.models.join(", ") },
  { name: "host", value: (r) => `${r.host}:${r.pid}` },
  { name: "up", value: (r, now) => duration(now - r.started_at), number: true },
]);

const finishedTable = new Table(
  "finished",
  [
    { name: "ended", value: (r, now) => `${duration(now - r.finished_at)} ago`, number: true },
    id,
    model,
    { name: "status", value: (r) => r.status, mark: (r) => r.status },
    { name: "error", value: (r) => r.error_type },
    tokens,
    { name: "took", value: (r) => duration(r.finished_at - r.created_at), number: true },
    worker,
  ],
  [{ name: "Watch", run: watch }],
);

let shown = null; // the last snapshot

function show() {
  const { counts, replicas, recent, now } = shown;
  write($("total"), String(counts.total));
  write($("queued"), String(counts.queued));
  write($("running"), String(counts.running));
  document.title = `${counts.total} inflight – lifecycle`;
  showInflight();
  const age = (a, b) => a.role.localeCompare(b.role) || a.started_at - b.started_at; // leases change order all the time
  replicaTable.show(replicas.toSorted(age), now);
  write($("replicas-note"), replicas.some((r) => r.role === "worker") ? "" : "No worker is alive.");
  const finished = recent.filter((r) => r.finished_at !== null).toSorted((a, b) => b.finished_at - a.finished_at);
  finishedTable.show(finished, now);
  const none = recent.length ? `None among the newest ${recent.length} requests.` : "No requests yet.";
  write($("finished-note"), finished.length ? "" : none);
}

function showInflight() {
  if (shown === null) return;
  const { inflight, hasMore, now } = shown;
  const wanted = $("filter").value.trim().toLowerCase();
  const matches = inflight.filter((r) =>
    [r.id, r.model, r.status, r.frontend, r.worker].some((field) => field?.toLowerCase().includes(wanted)),
  );
  inflightTable.show(matches, now);
  const notes = [];
  if (!inflight.length) notes.push("Nothing is inflight.");
  else if (wanted) notes.push(`${matches.length} of ${inflight.length} match.`);
  if (hasMore) notes.push(`Only the newest ${inflight.length} are listed.`);
  write($("inflight-note"), notes.join(" "));
}

$("filter").oninput = showInflight;

// ---- polling

let problem = null;
let freshAt = performance.now();

async function refresh() {
  // One after the other: a slow frontend is not made slower by its dashboard.
  const counts = (await call("v1/inflight")).body;
  const inflight = (await call("v1/requests?status=inflight&limit=100")).body;
  const recent = (await call("v1/requests?limit=25")).body;
  const replicas = (await call("v1/replicas")).body;
  shown = {
    counts, inflight: inflight.data, hasMore: inflight.has_more, recent: recent.data, replicas: replicas.data,
    now: counts.as_of,
  };
  show();
}

function showHealth() {
  const ageMs = performance.now() - freshAt;
  const stale = problem !== null || ageMs > STALE_MS;
  document.body.classList.toggle("stale", stale);
  $("health").hidden = !stale;
  write($("health-why"), explain());
  const age = duration(Math.floor(ageMs / 1000));
  write($("health-age"), shown ? `What is shown is ${age} old.` : "There is nothing to show yet.");
}

function explain() {
  if (problem === null) return "";
  if (problem.code === "redis_unavailable") return "Redis is away (503): nothing can be counted, started or cancelled.";
  return problem.status ? `This frontend answers ${problem.status}: ${problem.message}.` : `This frontend cannot be reached: ${problem.message}.`;
}

function pause(ms) {
  return new Promise((resolve) => {
    const done = () => {
      if (document.hidden) return; // goes on when somebody looks
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    document.addEventListener("visibilitychange", done);
  });
}

async function run() {
  for (let failures = 0; ; ) {
    try {
      await refresh();
      [problem, failures, freshAt] = [null, 0, performance.now()];
    } catch (caught) {
      if (!(caught instanceof Problem)) console.error(caught);
      [problem, failures] = [caught, failures + 1];
    }
    showHealth();
    await pause(Math.min(POLL_MS * 2 ** failures, SLOWEST_POLL_MS));
  }
}

setInterval(() => document.hidden || showHealth(), 1000);
run();
