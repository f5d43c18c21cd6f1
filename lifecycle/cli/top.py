"""`top`: totals, replicas and what is inflight, refreshed each second until `q` or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifecycle.cli import listing, output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.output import Cell
from lifecycle.errors import StoreUnavailable
from lifecycle.model import Request
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lifecycle.cluster import Snapshot
    from lifecycle.store.scripts import Store

_RICH_COLORS = {output.RED: "red", output.GREEN: "green", output.YELLOW: "yellow", output.CYAN: "cyan"}


@dataclass(slots=True, frozen=True)
class View:
    """Everything one refresh shows, at `now` by Redis's clock."""

    snapshot: Snapshot
    requests: list[Request]
    now: float

    def to_json(self) -> dict[str, Any]:
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


@with_settings(OPERATOR)
def top(
    settings: Settings,
    limit: Annotated[int, typer.Option(help="How many requests at most.", min=1, max=1000)] = 50,
    interval_secs: Annotated[float, typer.Option(help="How often to refresh.", min=0.1, max=3600)] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print one snapshot as JSON and exit.")] = False,
) -> int:
    """Watch the cluster live: totals, replicas, what is inflight."""
    from lifecycle.cli.operate import operate

    async def work(store: Store) -> int:
        view = await _look(store, limit)
        if json:
            output.write_json(view.to_json())
        elif not sys.stdout.isatty():
            _print_once(view)
        else:
            await _watch(store, view, limit, interval_secs)
        return 0

    return operate(settings, work)


async def _look(store: Store, limit: int) -> View:
    from lifecycle import cluster

    snapshot, (requests, _), now = await asyncio.gather(
        cluster.snapshot(store),
        cluster.list_requests(store, cluster.Filter(status=cluster.INFLIGHT), limit),
        store.now(),
    )
    return View(snapshot, requests, now)


async def _watch(store: Store, view: View, limit: int, interval_secs: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with _keys() as keys, Live(render(view), console=Console(), screen=True, auto_refresh=False) as live:
        async for _ in _ticks(keys, interval_secs):
            try:
                view = await _look(store, limit)
                live.update(render(view), refresh=True)
            except StoreUnavailable as failure:  # the last picture stays, and says that it is old
                live.update(Group(Text(failure.message, "bold red"), render(view)), refresh=True)


async def _ticks(keys: asyncio.Queue[str], interval_secs: float) -> AsyncIterator[None]:
    """One each interval, until `q`."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        yield
        due = max(loop.time(), due + interval_secs)
        try:
            async with asyncio.timeout_at(due):
                while await keys.get() not in ("q", "Q"):
                    pass
            return
        except TimeoutError:
            continue


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Keys as they are pressed; none where standard input is no terminal."""
    pressed: asyncio.Queue[str] = asyncio.Queue()
    if not sys.stdin.isatty():
        yield pressed
        return
    import termios
    import tty

    descriptor, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: pressed.put_nowait(os.read(descriptor, 1).decode(errors="replace")))
    try:
        yield pressed
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def render(view: View) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    counts = view.snapshot.inflight
    finished: dict[str, int] = {}
    for labels, count in view.snapshot.totals.items():
        finished[labels[4] or labels[3]] = finished.get(labels[4] or labels[3], 0) + count
    oldest = view.snapshot.oldest_created_at
    summary = [
        f"inflight {counts.total.inflight}", f"queued {counts.total.queued}", f"running {counts.total.running}",
        f"oldest {output.duration(None if oldest is None else view.now - oldest)}",
        *(f"{name} {count}" for name, count in sorted(finished.items())),
    ]  # fmt: skip
    return Group(
        Text("   ".join(summary) + "      q quits", "bold"),
        _table(listing.INFLIGHT_HEADS, listing.inflight_rows(counts)),
        _table(listing.REPLICA_HEADS, [listing.replica_row(r, view.now) for r in view.snapshot.replicas]),
        _table(listing.PS_HEADS, [listing.request_row(r, view.now) for r in view.requests]),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    cells = [[value if isinstance(value, Cell) else Cell(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1))
    for index, head in enumerate(heads):
        # Where it gets narrow, ids are the last to be cut: they are there to be copied.
        width = max((len(row[0].text) for row in cells), default=0) if index == 0 else None
        table.add_column(head, no_wrap=True, min_width=width)
    for row in cells:
        table.add_row(*(Text(output.printable(c.text) or output.NONE, _RICH_COLORS.get(c.color, "")) for c in row))
    return table


def _print_once(view: View) -> None:
    from rich.console import Console

    Console(width=200).print(render(view))
