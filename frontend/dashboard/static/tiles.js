// Show the totals of the cluster: a number, a note and a chart of the last minutes.

import { Chart } from "./chart.js";
import { $, element, mark, write } from "./dom.js";
import { duration, number } from "./format.js";

const MINUTE = 60;
const [AT, QUEUED, RUNNING, TOKENS, COMPLETED, FAILED, CANCELLED, DISCONNECTS] = [0, 1, 2, 3, 4, 5, 6, 7];
const HEARTBEAT = "Frontends report this number with their heartbeats.";

const TILES = [
  { name: "Queued", column: QUEUED, value: (v) => v.last[QUEUED], note: (v) => (v.oldest === null ? "" : `oldest inflight ${duration(v.oldest)}`) },
  { name: "Running", column: RUNNING, value: (v) => v.last[RUNNING], note: (v) => `of ${number(v.slots)} slots` },
  { name: "Tokens/s", column: TOKENS, value: (v) => Math.round(v.last[TOKENS]), note: (v) => `peak ${number(Math.round(Math.max(...v.history.map((p) => p[TOKENS]))))}`, title: HEARTBEAT },
  {
    name: "Error rate", column: FAILED, bars: true, bad: true,
    value: (v) => (v.ended ? `${((100 * v.sum(FAILED)) / v.ended).toFixed(v.sum(FAILED) ? 1 : 0)} %` : "–"),
    note: (v) => `${number(v.sum(FAILED))} of ${number(v.ended)}, ${v.span}`,
    title: "The failed requests among all that ended. A cancelled request is not a failure.",
  },
  { name: "Cancels", column: CANCELLED, bars: true, value: (v) => v.sum(CANCELLED), note: (v) => v.span },
  { name: "Disconnects", column: DISCONNECTS, bars: true, value: (v) => v.sum(DISCONNECTS), note: (v) => v.span, title: HEARTBEAT },
];

const made = TILES.map((tile) => {
  const chart = new Chart({ bars: tile.bars });
  const [value, note] = [element("dd", { className: "value" }), element("dd", { className: "tile-note" })];
  const box = element("div", { className: "tile", title: tile.title ?? "" }, element("dt", { textContent: tile.name }), value, note);
  box.append(chart.element);
  value.dataset.tile = tile.name.toLowerCase();
  $("tiles").append(box);
  return { ...tile, box, chart, value, note, show: tile.value, explain: tile.note };
});

export function showTiles(state) {
  const { history, facts } = state;
  const minute = history.filter((point) => point[AT] > facts.as_of - MINUTE);
  const sum = (column) => minute.reduce((total, point) => total + point[column], 0);
  const watched = minute.length ? facts.as_of - minute[0][AT] : 0;
  const workers = [...state.tables.replicas.values()].filter((replica) => replica.concurrency && !replica.gone_at);
  const view = {
    history, sum,
    last: history.at(-1),
    ended: sum(COMPLETED) + sum(FAILED) + sum(CANCELLED),
    span: watched > MINUTE - 5 ? "last minute" : `last ${Math.max(1, Math.round(watched))} s`,
    oldest: facts.oldest_created_at === null ? null : facts.as_of - facts.oldest_created_at,
    slots: workers.reduce((total, worker) => total + worker.concurrency, 0),
  };
  for (const tile of made) {
    const value = tile.show(view);
    write(tile.value, typeof value === "number" ? number(value) : value);
    write(tile.note, tile.explain(view));
    mark(tile.box, "alarm", String(Boolean(tile.bad && view.sum(tile.column))));
    tile.chart.draw(history.map((point) => [point[AT], point[tile.column]]), facts.as_of);
  }
}
