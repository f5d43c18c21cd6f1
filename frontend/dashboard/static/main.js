// The dashboard: one live connection to this frontend, and what it says shown in tiles and tables.

import { askToCancel, cancelling } from "./cancel.js";
import * as columns from "./columns.js";
import { openDetail } from "./detail.js";
import { $, mark, write } from "./dom.js";
import { duration, number, time } from "./format.js";
import { showSession } from "./session.js";
import { Picture } from "./state.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";
import { showTiles } from "./tiles.js";

const STALE_SECS = 4;
const SILENT_SECS = 15; // then the connection is given up: it may be dead without anybody saying so
const HIDDEN_MS = 30_000; // a page nobody looks at lets go of its connection
const FILTER_MS = 250;
const FIRST_ROWS = 50;
const MOST_ROWS = 200;

let picture = new Picture();
let stream = null;
let trouble = null; // why the picture is not fresh, when that is known
let heardAt = performance.now();
let rows = FIRST_ROWS;

const open = (r, from) => openDetail(r.id, from);
const watchAction = { name: "Watch", key: "w", run: (r, from) => openDetail(r.id, from, { andWatch: true }) };
const cancelAction = { name: "Cancel", key: "c", run: (r) => askToCancel(r.id), hidden: (r) => cancelling.has(r.id) };
const inflight = new Table("inflight", { columns: columns.inflight, actions: [watchAction, cancelAction], open });
const finished = new Table("finished", { columns: columns.finished, open, descending: false });
const replicas = new Table("replicas", {
  columns: columns.replicas(() => 2 * picture.facts.heartbeat_secs + 1, () => picture.facts.as_of),
  descending: false,
});

function connect() {
  const query = new URLSearchParams({
    order: inflight.sorting.name === "age" && !inflight.sorting.descending ? "newest" : "oldest",
    status: $("status").value, outcome: $("outcome").value, q: $("filter").value.trim(), rows,
  });
  stream?.close();
  heardAt = performance.now();
  stream = new Stream(`v1/overview?${query}`, {
    onOpen: () => (heardAt = performance.now()),
    onTrouble: (problem) => say(problem.status ? `This frontend refuses (${problem.status}): ${problem.message}.` : `This frontend cannot be reached: ${problem.message}.`),
    onEvent: (data) => {
      heardAt = performance.now();
      const event = JSON.parse(data);
      if (event.trouble !== undefined) return say(`Redis is away: ${event.trouble}.`);
      trouble = null;
      picture.take(event);
      show();
    },
  });
}

function say(words) {
  trouble = words;
  show();
}

// ---- what is shown

function show() {
  showHealth();
  if (picture.empty) return;
  const { facts, tables } = picture;
  showTiles(picture);
  inflight.show([...tables.inflight.values()], facts.listed_at);
  finished.show([...tables.finished.values()], facts.listed_at);
  replicas.show([...tables.replicas.values()], facts.as_of);
  const [, queued, running] = facts.point;
  const total = queued + running;
  document.title = `${number(total)} inflight – lifecycle`;
  write($("inflight-count"), number(total));
  write($("via"), `through ${facts.frontend}`);
  showNotes(total);
}

function showNotes(total) {
  const { facts, tables, history } = picture;
  const shown = tables.inflight.size;
  const narrowed = $("filter").value.trim() !== "" || $("status").value !== "";
  const end = inflight.sorting.name === "age" && !inflight.sorting.descending ? "newest" : "oldest";
  let note = "";
  if (!shown) note = narrowed ? `None of ${number(total)} inflight match.` : total ? "" : "Nothing is inflight.";
  else if (facts.more) note = `The ${number(shown)} ${end}${narrowed ? " that match" : ""}, of ${number(total)} inflight.`;
  else if (narrowed) note = `${number(shown)} of ${number(total)} inflight match.`;
  write($("inflight-note"), note);
  $("more").hidden = !facts.more || rows >= MOST_ROWS;
  const living = [...tables.replicas.values()].filter((r) => !r.gone_at);
  const dead = [...tables.replicas.values()].filter((r) => r.state === "dead");
  write($("replicas-count"), `${living.length}${dead.length ? ` + ${dead.length} dead` : ""}`);
  write($("replicas-note"), living.some((r) => r.role === "worker") ? "" : "No worker is alive: nothing will be started.");
  write($("finished-note"), tables.finished.size ? "" : "None, for as long as finished requests are kept.");
  write($("since"), `Charts show at most the last five minutes, and begin when somebody looks: here at ${time(history[0][0])}.`);
}

function showHealth() {
  const silentSecs = (performance.now() - heardAt) / 1000;
  if (silentSecs > SILENT_SECS && !document.hidden) connect();
  const stale = trouble !== null || picture.empty || picture.ageSecs > STALE_SECS;
  const bad = stale && (trouble !== null || silentSecs > STALE_SECS);
  mark($("live"), "state", bad ? "stale" : picture.empty ? "connecting" : "live");
  write($("live"), bad ? "Stale" : picture.empty ? "Connecting …" : "Live");
  document.body.classList.toggle("stale", bad);
  $("trouble").hidden = !bad;
  write($("trouble-why"), bad ? (trouble ?? "Nothing comes from this frontend.") : "");
  const age = picture.empty ? "There is nothing to show yet." : `What is shown is ${duration(picture.ageSecs)} old.`;
  write($("trouble-age"), bad ? age : "");
}

// ---- what the viewer does

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
