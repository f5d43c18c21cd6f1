// Show one request beside the tables: its full record, its live tokens and a button to cancel it.

import { call, requestPath } from "./api.js";
import { askToCancel } from "./cancel.js";
import { $, element, mark, write } from "./dom.js";
import { shortDuration, moment, number } from "./format.js";
import { phase } from "./state.js";
import { stopWatching, watch, watching } from "./watch.js";

const REFRESH_MS = 2000;
const TIMES = /_at$/;

let shown = null; // the id
let opener = null;
let timer = null;

export function openDetail(id, from, { andWatch = false } = {}) {
  if (shown !== id) {
    closeDetail();
    shown = id;
    write($("detail-id"), id);
    write($("detail-problem"), "");
    $("record").replaceChildren();
    $("timeline").replaceChildren();
    showTree([], id);
    refresh(id);
  }
  opener = from;
  $("detail").hidden = false;
  $("detail-id").focus({ preventScroll: true });
  if (andWatch && !watching()) startWatching();
}

export function closeDetail() {
  clearTimeout(timer);
  stopWatching();
  write($("detail-watch"), "Watch");
  $("detail").hidden = true;
  shown = null;
  if (opener?.isConnected) opener.focus();
  opener = null;
}

function startWatching() {
  watch(shown);
  write($("detail-watch"), "Hide tokens");
}

async function refresh(id) {
  let over = false;
  try {
    const paths = [requestPath(id), requestPath(id, "/timeline"), requestPath(id, "/tree")];
    const [{ body }, timeline, tree] = await Promise.all(paths.map((path) => call(path)));
    if (shown !== id) return;
    showRecord(body);
    showTimeline(timeline.body.data);
    showTree(tree.body.data, id);
    write($("detail-problem"), "");
    over = body.finished_at !== null;
  } catch (problem) {
    if (shown !== id) return;
    write($("detail-problem"), `The record cannot be read: ${problem.message}`);
    over = problem.status === 404;
  }
  if (!over) timer = setTimeout(() => refresh(id), REFRESH_MS);
}

function showRecord(record) {
  write($("detail-phase"), phase(record));
  mark($("detail-phase"), "mark", phase(record));
  $("detail-cancel").hidden = record.finished_at !== null;
  const rows = Object.entries(record).filter(([name]) => name !== "object");
  const list = $("record");
  if (list.children.length !== rows.length) {
    list.replaceChildren(...rows.map(([name]) => element("div", {}, element("dt", { textContent: name }), element("dd"))));
  }
  rows.forEach(([name, value], index) => {
    const cell = list.children[index].lastChild;
    write(cell, formatField(name, value, record));
    cell.classList.toggle("none", value === null || value === "");
  });
}

function showTimeline(entries) {
  const begun = entries[0].at;
  const lines = entries.map(({ at, what, ...details }) => {
    const told = Object.entries(details).filter(([, value]) => value !== null && value !== "");
    const words = told.map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ");
    return `+${shortDuration(at - begun)}  ${what.replaceAll("_", " ")}${words ? `: ${words}` : ""}`;
  });
  const list = $("timeline");
  while (list.children.length > lines.length) list.lastChild.remove();
  while (list.children.length < lines.length) list.append(element("li"));
  lines.forEach((line, index) => write(list.children[index], line));
}

/** Show the requests that led to this one and those that it has started, if there are any; a click opens one. */
function showTree(nodes, id) {
  const shown = nodes.length > 1 ? nodes : [];
  $("tree-title").hidden = shown.length === 0;
  const list = $("tree");
  while (list.children.length > shown.length) list.lastChild.remove();
  while (list.children.length < shown.length) list.append(element("li", {}, element("button", { type: "button" }), " ", element("span")));
  shown.forEach((node, index) => {
    const [button, phaseOf] = list.children[index].children;
    list.children[index].style.paddingLeft = `${node.depth}rem`;
    write(button, node.id);
    button.toggleAttribute("aria-current", node.id === id);
    button.onclick = () => openDetail(node.id, opener);
    write(phaseOf, node.cancelled_by ? `${node.status} by ${node.cancelled_by}` : node.status);
  });
}

function formatField(name, value, record) {
  if (value === null || value === "") return "–";
  if (!TIMES.test(name)) return typeof value === "number" ? number(value) : String(value);
  return name === "created_at" ? moment(value) : `${moment(value)}  (+${shortDuration(value - record.created_at)})`;
}

$("detail-close").onclick = closeDetail;
$("detail-cancel").onclick = () => askToCancel(shown);
$("detail-watch").onclick = () => {
  if (!watching()) return startWatching();
  stopWatching();
  write($("detail-watch"), "Watch");
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && shown !== null && !document.querySelector("dialog[open]")) closeDetail();
});
