"""Compute and render what one refresh of `top` shows, including rates since the refreshes before."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lifecycle.cli import listing, output
from lifecycle.cli.output import Cell
from lifecycle.types import RequestRecord, Status

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lifecycle.queries.cluster import ClusterSnapshot

_RICH_COLORS = {output.RED: "red", output.GREEN: "green", output.YELLOW: "yellow", output.CYAN: "cyan"}
_RECENT_SECS = 60.0
_HEADS = [*listing.PS_HEADS[:6], "TOKENS/S", *listing.PS_HEADS[6:]]


@dataclass(slots=True, frozen=True)
class View:
    """The state at `now` (Unix seconds by Redis's clock); `requests` are the oldest inflight requests."""

    snapshot: ClusterSnapshot
    requests: list[RequestRecord]
    now: float
    rates: Mapping[str, float] = field(default_factory=dict)  # tokens per second, by request id
    recent: Mapping[str, int] = field(default_factory=dict)  # number of ended requests by outcome, within `recent_secs`
    recent_secs: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `top --json` prints."""
        names = ("model", "endpoint", "request_type", "status", "error_type")
        return {
            "object": "top",
            "as_of": self.now,
            "inflight": self.snapshot.inflight.to_json(),
            "replicas": [replica.to_json() for replica in self.snapshot.replicas],
            "totals": [
                {**dict(zip(names, labels, strict=True)), "requests": count}
                for labels, count in sorted(self.snapshot.totals.items())
            ],
            "requests": [request.to_json() for request in self.requests],
        }


def silence_secs(request: RequestRecord, now: float) -> float:
    """Return the time since the last token of a running request, in seconds; 0 for other requests."""
    since = request.last_token_at or request.started_at
    return now - since if request.status is Status.RUNNING and since is not None else 0.0


class Trend:
    """Derive rates and recent outcomes from consecutive polls of the cluster."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._polled_at = 0.0
        self._ended: deque[tuple[float, dict[str, int]]] = deque()

    def follow(self, snapshot: ClusterSnapshot, requests: list[RequestRecord], now: float) -> View:
        """Add one poll and return the view of it."""
        rates = {request.id: self._rate(request, now) for request in requests}
        self._tokens, self._polled_at = {request.id: request.output_tokens for request in requests}, now
        ended = _ended(snapshot)
        self._ended.append((now, ended))
        while now - self._ended[0][0] > _RECENT_SECS and len(self._ended) > 1:
            self._ended.popleft()
        then, before = self._ended[0]
        recent = {name: count - before.get(name, 0) for name, count in ended.items() if count > before.get(name, 0)}
        return View(snapshot, requests, now, rates, recent, now - then)

    def _rate(self, request: RequestRecord, now: float) -> float:
        """Return tokens per second since the previous poll; at the first poll, since the first token."""
        before = self._tokens.get(request.id)
        since = self._polled_at if before is not None else request.first_token_at
        new = request.output_tokens - (before or 0)
        return new / (now - since) if since is not None and now > since and new > 0 else 0.0


def _ended(snapshot: ClusterSnapshot) -> dict[str, int]:
    """Count ended requests by error type, or as `completed`."""
    ended: dict[str, int] = defaultdict(int)
    for (*_, error_type), count in snapshot.totals.items():
        ended[error_type or "completed"] += count
    return ended


# Orders of the requests, by the key that selects them: the name, and a sort key that puts notable requests first.
ORDERS: dict[str, tuple[str, Callable[[View, RequestRecord], Any]]] = {
    "a": ("age", lambda view, request: request.created_at),
    "s": ("silence", lambda view, request: -silence_secs(request, view.now)),
    "t": ("tokens", lambda view, request: -request.output_tokens),
    "r": ("rate", lambda view, request: -view.rates.get(request.id, 0.0)),
    "m": ("model", lambda view, request: request.model),
    "w": ("worker", lambda view, request: request.worker or ""),
}


def render(view: View, order: str = "a", *, match: str = "", notice: str = "") -> RenderableType:
    """Return what `top` prints for a view. `match` is the text that the requests were filtered by."""
    from rich.console import Group
    from rich.text import Text

    counts, total = view.snapshot.inflight, view.snapshot.inflight.total.inflight
    ordered = sorted(view.requests, key=lambda request: ORDERS[order][1](view, request))
    replicas = sorted(view.snapshot.replicas, key=lambda replica: (replica.role, -replica.inflight, replica.id))
    keys = "  ".join(f"{key} {name}" for key, (name, _) in ORDERS.items())
    shown = f"the {len(ordered)} oldest of {total}" if len(ordered) < total else f"{len(ordered)} inflight"
    if match:
        shown = f"the {len(ordered)} oldest with {output.printable(match)!r}"
    return Group(
        *([Text(notice, "bold red")] if notice else []),
        Text("   ".join(_summary(view)), "bold"),
        Text("   ".join(_endings(view)), "" if view.recent.keys() <= {"completed"} else "yellow"),
        _table(listing.INFLIGHT_HEADS, listing.inflight_rows(counts)),
        _table(listing.REPLICA_HEADS, [listing.replica_row(replica, view.now) for replica in replicas]),
        Text(f"{shown}, by {ORDERS[order][0]}      order: {keys}      q quits", "dim"),
        _table(_HEADS, [_row(view, request) for request in ordered]),
    )


def _summary(view: View) -> list[str]:
    total, oldest = view.snapshot.inflight.total, view.snapshot.oldest_created_at
    silent = max((silence_secs(request, view.now) for request in view.requests), default=None)
    rate = sum(view.rates.values())
    part = "" if len(view.requests) == total.inflight else " (of those shown)"
    stuck = sum(replica.stuck for replica in view.snapshot.replicas)
    return [
        f"inflight {total.inflight}",
        f"queued {total.queued}",
        f"running {total.running}",
        f"tokens/s {rate:.0f}{part}",
        f"oldest {output.duration(None if oldest is None else view.now - oldest)}",
        f"longest silence {output.duration(silent)}",
        *([f"engines stuck {stuck}"] if stuck else []),
    ]


def _endings(view: View) -> list[str]:
    """Count outcomes of the last minute, or of all time until a minute has been observed."""
    counts, span = view.recent, f"ended in the last {view.recent_secs:.0f} s:"
    if view.recent_secs < 1:
        counts, span = _ended(view.snapshot), "ended in total:"
    return [span, *(f"{name} {count}" for name, count in sorted(counts.items()))] if counts else [f"{span} none"]


def _row(view: View, request: RequestRecord) -> list[str | Cell]:
    row = listing.request_row(request, view.now)
    rate = view.rates.get(request.id, 0.0)
    return [*row[:6], f"{rate:.1f}" if rate else output.NONE, *row[6:]]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    cells = [[value if isinstance(value, Cell) else Cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    for index, head in enumerate(heads):
        # On a narrow terminal ids are truncated last, because people copy them.
        width = max((len(row[0].text) for row in cells), default=0) if index == 0 else None
        table.add_column(head, no_wrap=True, min_width=width)
    for row in cells:
        table.add_row(*(Text(output.printable(c.text) or output.NONE, _RICH_COLORS.get(c.color, "")) for c in row))
    return table
