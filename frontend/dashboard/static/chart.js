// Draw small SVG charts: a line over time, or bars that each add up five seconds.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const SHORTEST_SECS = 60;
const HEIGHT = 40;
const MIN_TOP = 2; // the least value at the top of a chart, so that a single event does not fill it
const LONGEST_GAP_SECS = 5; // the line is interrupted between points that are further apart
const BAR_SECS = 5;

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A chart. `draw([[secs, value], …], now)` shows the time since the first point, but at least a minute. */
export class Chart {
  #bars;
  #line = shape("path", { class: "line", "vector-effect": "non-scaling-stroke" });
  #area = shape("path", { class: "area" });

  constructor({ bars = false } = {}) {
    this.#bars = bars;
    this.element = shape("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "chart",
    });
    this.element.append(this.#area, this.#line);
  }

  draw(points, now) {
    const highest = Math.max(MIN_TOP, ...(this.#bars ? summed(points).values() : points.map(([, value]) => value)));
    const span = Math.max(SHORTEST_SECS, now - (points[0]?.[0] ?? now));
    const x = (at) => (WIDTH * (1 - (now - at) / span)).toFixed(1);
    const y = (value) => (HEIGHT - 1 - (value / highest) * (HEIGHT - 4)).toFixed(1);
    if (this.#bars) this.#area.setAttribute("d", bars(points, x, y));
    else this.#drawLine(points, x, y);
  }

  #drawLine(points, x, y) {
    let line = "", area = "", run = [];
    const close = () => {
      if (run.length > 1) {
        const d = run.map(([at, value]) => `${x(at)} ${y(value)}`).join("L");
        line += `M${d}`;
        area += `M${x(run[0][0])} ${HEIGHT}L${d}L${x(run.at(-1)[0])} ${HEIGHT}Z`;
      }
      run = [];
    };
    for (const point of points) {
      if (run.length && point[0] - run.at(-1)[0] > LONGEST_GAP_SECS) close();
      run.push(point);
    }
    close();
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
  }
}

/** Return a map from the start of each bar to the sum of its points. */
function summed(points) {
  const sums = new Map();
  for (const [at, value] of points) {
    const start = Math.floor(at / BAR_SECS) * BAR_SECS;
    sums.set(start, (sums.get(start) ?? 0) + value);
  }
  return sums;
}

function bars(points, x, y) {
  let d = "";
  for (const [start, sum] of summed(points)) {
    if (sum > 0) d += `M${x(start + 0.8)} ${HEIGHT}V${y(sum)}H${x(start + BAR_SECS)}V${HEIGHT}Z`;
  }
  return d;
}
