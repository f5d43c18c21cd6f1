"""`python -m benchmarks.chart`: a run's JSON as the chart and the tables of docs/performance.md.

It writes docs/performance.svg, and what stands between the two marks in docs/performance.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import orjson

from benchmarks import costs
from benchmarks.report import number
from benchmarks.tables import markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latest.json"
BEGINS = "<!-- written by python -m benchmarks.chart -->"
ENDS = "<!-- end of what it writes -->"
_WIDTH, _LEFT, _RIGHT = 800, 110, 230
_BAR, _GAP, _TITLE = 13, 9, 34
_CAPTION = "Throughput, CPU time and latency, side by side"
_IMAGE = f"![{_CAPTION}](performance.svg)"
_HELD = 0.97  # of the tokens due: a latency of a system that falls behind says nothing
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333c46 }
.title { font-weight: 600; font-size: 13px }
.value { font-size: 11px }
.s0 { fill: #2f81f7 } .s1 { fill: #a8703a }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } .s1 { fill: #d29a5c } }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    workloads: str
    figure: str


PANELS = (
    Panel("Unpaced streams of 200 tokens: tokens/s (more is better)", "unpaced-*", "tokens_per_sec"),
    Panel("Streams of 20 tokens/s: CPU-µs per token, all servers (less is better)", "paced-*", "cpu_us_per_token"),
    Panel("Streams of 20 tokens/s: engine's yield to client's socket, p99, ms", "paced-*", "yield_to_socket_p99_ms"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("json", type=Path, nargs="?", default=RESULTS, help="of a run (%(default)s)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    run = orjson.loads(args.json.read_bytes())
    page = args.docs / "performance.md"
    before, _, rest = page.read_text().partition(BEGINS)
    _, found, after = rest.partition(ENDS)
    if not found:
        parser.error(f"{page} lacks the line {BEGINS} or, behind it, the line {ENDS}")
    (args.docs / "performance.svg").write_text(svg(run))
    written = "\n\n".join(piece for piece in (_IMAGE, markdown(run), costs.markdown(run)) if piece)
    page.write_text(f"{before}{BEGINS}\n\n{written}\n\n{ENDS}{after}")
    return 0


def svg(run: Mapping[str, Any]) -> str:
    """Bars in groups, a group for each workload; legible on light and on dark paper."""
    pieces: list[str] = []
    y = 10
    for index, system in enumerate(run["systems"]):
        x = _LEFT + index * 120
        pieces.append(f'<rect class="s{index}" x="{x}" y="{y}" width="12" height="12" rx="2"/>')
        pieces.append(_text(x + 18, y + 10, system))
    y += 20
    for panel in PANELS:
        drawn, height = _panel(panel, run, y)
        pieces += drawn
        y += height
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    title = f"<title>{_CAPTION}</title>"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            title,
            f"<style>{_STYLE}</style>",
            *pieces,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, run: Mapping[str, Any], top: int) -> tuple[list[str], int]:
    """Return the panel's SVG elements and its height: an empty list and 0 if nothing was measured."""
    groups = {name: run["figures"][name] for name in run["figures"] if fnmatch(name, panel.workloads)}
    values = {
        (name, system): figures[panel.figure][system]
        for name, figures in groups.items()
        for system in run["systems"]
        if system in figures.get(panel.figure, {}) and (not panel.figure.endswith("_ms") or _holds(figures, system))
    }
    if not values:
        return [], 0
    scale = (_WIDTH - _LEFT - _RIGHT) / (max(values.values()) or 1.0)
    pieces = [_text(0, top + 22, panel.title, "title")]
    y = top + _TITLE
    for name, figures in groups.items():
        pieces.append(_text(_LEFT - 8, y + len(run["systems"]) * _BAR / 2 + 4, name, anchor="end"))
        for index, system in enumerate(run["systems"]):
            value = values.get((name, system))
            width = 0.0 if value is None else max(1.0, value * scale)
            note = "" if value is None else number(value)
            if not _holds(figures, system):
                behind = f"falls behind: {figures['delivered_of_due'][system]:.0%} of what is due"
                note = f"{note}, {behind}" if note else behind
            pieces.append(
                f'<rect class="s{index}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 2}" rx="2"/>'
            )
            pieces.append(_text(_LEFT + width + 5, y + 10, note, "value"))
            y += _BAR
        y += _GAP
    return pieces, y - top


def _holds(figures: Mapping[str, Mapping[str, float]], system: str) -> bool:
    return figures.get("delivered_of_due", {}).get(system, 1.0) >= _HELD


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


if __name__ == "__main__":
    sys.exit(main())
