// The dashboard: follow this frontend's overview and show it in tiles and tables.

import { askToCancel, cancelling } from "./cancel.js";
import * as columns from "./columns.js";
import { openDetail } from "./detail.js";
import { $, mark, write } from "./dom.js";
import { duration, number, time } from "./format.js";
import { askToDrain, instruct } from "./instruct.js";
import { showSession } from "./session.js";
import { ClusterState } from "./state.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";
import { showTiles } from "./tiles.js";

const STALE_SECS = 4;
const SILENT_SECS = 15; // without a message; then reconnect, since the connection may be lost unnoticed
const HIDDEN_MS = 30_000; // a page in the background closes its connection after this time
const FILTER_MS = 250;
const FIRST_ROWS = 50;
const MOST_ROWS = 200;

const state = new ClusterState();
let stream = null;
let trouble = null; // why there are no updates, if that is known
let receivedAt = performance.now();
let rows = FIRST_ROWS;

const open = (r, from) => openDetail(r.id, from);
const watchAction = { name: "Watch", key: "w", run: (r, from) => openDetail(r.id, from, { andWatch: true }) };
const cancelAction = { name: "Cancel", key: "c", run: (r) => askToCancel(r.id), hidden: (r) => cancelling.has(r.id) };
const inflight = new Table("inflight", { columns: columns.inflight, actions: [watchAction, cancelAction], open });
const finished = new Table("finished", { columns: columns.finished, open, descending: false });
const queue = new Table("queue", { columns: columns.queue, descending: false });
const takesNothing = (r) => r.gone_at || r.state === "draining";
const replicaActions = [
  { name: "Pause", run: (r) => instruct(r.id, "pause"), hidden: (r) => takesNothing(r) || r.role !== "worker" || r.state === "paused" },
  { name: "Resume", run: (r) => instruct(r.id, "resume"), hidden: (r) => takesNothing(r) || r.state !== "paused" },
  { name: "Drain", run: (r) => askToDrain(r.id), hidden: takesNothing },
];
const replicas = new Table("replicas", {
  actions: replicaActions,
  columns: columns.replicas(() => 2 * state.facts.heartbeat_secs + 1, () => state.facts.as_of),
  descending: false,
});

function connect() {
  const query = new URLSearchParams({
    order: inflight.sorting.name === "age" && !inflight.sorting.descending ? "newest" : "oldest",
    status: $("status").value, outcome: $("outcome").value, q: $("filter").value.trim(), rows,
  });
  stream?.close();
  receivedAt = performance.now();
  stream = new Stream(`v1/overview?${query}`, {
    onOpen: () => (receivedAt = performance.now()),
    onTrouble: (problem) => showTrouble(problem.status ? `This frontend responds with an error (${problem.status}): ${problem.message}.` : `This frontend cannot be reached: ${problem.message}.`),
    onEvent: (data) => {
      receivedAt = performance.now();
      const event = JSON.parse(data);
      if (event.trouble !== undefined) return showTrouble(`Redis is unavailable: ${event.trouble}.`);
      trouble = null;
      state.apply(event);
      show();
    },
  });
}

function showTrouble(text) {
  trouble = text;
  show();
}

// ---- show the state

function show() {
  showHealth();
  if (state.empty) return;
  const { facts, tables } = state;
  showTiles(state);
  inflight.show([...tables.inflight.values()], facts.listed_at);
  finished.show([...tables.finished.values()], facts.listed_at);
  queue.show([...tables.queue.values()], facts.as_of);
  $("queue-section").hidden = !tables.queue.size;
  replicas.show([...tables.replicas.values()], facts.as_of);
  const [, queued, running] = facts.point;
  const total = queued + running;
  write($("queue-count"), number(queued));
  document.title = `${number(total)} inflight – lifecycle`;
  write($("inflight-count"), number(total));
  write($("via"), `served by ${facts.frontend}`);
  showNotes(total);
}

function showNotes(total) {
  const { facts, tables, history } = state;
  const shown = tables.inflight.size;
  const narrowed = $("filter").value.trim() !== "" || $("status").value !== "";
  const end = inflight.sorting.name === "age" && !inflight.sorting.descending ? "newest" : "oldest";
  let note = "";
  if (!shown) note = narrowed ? `None of ${number(total)} inflight requests found.` : total ? "" : "No request is inflight.";
  else if (facts.more) note = `The ${number(shown)} ${end}${narrowed ? " found" : ""} of ${number(total)} inflight requests.`;
  else if (narrowed) note = `Found ${number(shown)} of ${number(total)} inflight requests.`;
  write($("inflight-note"), note);
  $("more").hidden = !facts.more || rows >= MOST_ROWS;
  const living = [...tables.replicas.values()].filter((r) => !r.gone_at);
  const dead = [...tables.replicas.values()].filter((r) => r.state === "dead");
  write($("replicas-count"), `${living.length}${dead.length ? ` + ${dead.length} dead` : ""}`);
  write($("replicas-note"), replicasNote(living.filter((r) => r.role === "worker")));
  write($("finished-note"), tables.finished.size ? "" : "There is no finished request to show. Records expire after the retention time.");
  write($("since"), `The charts cover at most five minutes. They are recorded only while a dashboard is open: these begin at ${time(history[0][0])}.`);
}

/** Return why no queued request can start; an empty text while a worker takes them. */
function replicasNote(workers) {
  if (!workers.length) return "No worker is alive, so no queued request can start.";
  const states = [...new Set(workers.map((r) => r.state))].sort();
  return states.includes("ready") ? "" : `No worker is ready, so no queued request can start: they are ${states.join(" or ")}.`;
}

function showHealth() {
  const silentSecs = (performance.now() - receivedAt) / 1000;
  if (silentSecs > SILENT_SECS && !document.hidden) connect();
  const stale = trouble !== null || state.empty || state.ageSecs > STALE_SECS;
  const bad = stale && (trouble !== null || silentSecs > STALE_SECS);
  mark($("live"), "state", bad ? "stale" : state.empty ? "connecting" : "live");
  write($("live"), bad ? "Stale" : state.empty ? "Connecting …" : "Live");
  document.body.classList.toggle("stale", bad);
  $("trouble").hidden = !bad;
  write($("trouble-why"), bad ? (trouble ?? "This frontend sends no updates.") : "");
  const age = state.empty ? "There is nothing to show yet." : `The data shown is ${duration(state.ageSecs)} old.`;
  write($("trouble-age"), bad ? age : "");
}

// ---- react to the user

let typing = null;
$("filter").oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(connect, FILTER_MS);
};
$("status").onchange = connect;
$("outcome").onchange = connect;
$("more").onclick = () => {
  rows = Math.min(rows * 2, MOST_ROWS);
  connect();
};
let order = "";
inflight.onSort = () => {
  const { name, descending } = inflight.sorting;
  const next = name === "age" && !descending ? "newest" : "oldest";
  if (next !== order) connect();
  order = next;
};
$("help-open").onclick = () => $("help").showModal();

document.addEventListener("keydown", (event) => {
  const typed = event.target.closest("input, select, textarea, dialog");
  if (event.ctrlKey || event.metaKey || event.altKey || typed) return;
  if (event.key === "/") $("filter").focus();
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "j" || event.key === "k") inflight.focusFirst();
  else return;
  event.preventDefault();
});

let leaving = null;
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (document.hidden) {
    leaving = setTimeout(() => {
      stream.close();
      stream = null;
    }, HIDDEN_MS);
  } else if (stream === null) connect();
});

setInterval(() => document.hidden || showHealth(), 1000);
showSession();
connect();
