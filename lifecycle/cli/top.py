"""`top`: show totals, replicas and inflight requests, refreshed each second until `q` or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from lifecycle.cli import output
from lifecycle.cli.flags import OPERATOR, with_settings
from lifecycle.cli.options import chosen
from lifecycle.cli.view import ORDERS, Trend, View, render
from lifecycle.errors import StoreUnavailable
from lifecycle.settings import Settings

if TYPE_CHECKING:
    from lifecycle.store.transitions import Store

_KEYS = {name: key for key, (name, _) in ORDERS.items()}


@with_settings(OPERATOR)
def top(
    settings: Settings,
    match: Annotated[
        str, typer.Option(metavar="TEXT", help="Only requests with this text in id, model, status, frontend or worker.")
    ] = "",
    sort: Annotated[
        str, typer.Option(help=f"Order of the requests: {', '.join(_KEYS)}.", callback=chosen(*_KEYS))
    ] = "age",
    limit: Annotated[int, typer.Option(help="Maximum number of requests; the oldest are shown.", min=1, max=1000)] = 50,
    interval_secs: Annotated[float, typer.Option(help="Time between two refreshes.", min=0.1, max=3600)] = 1.0,
    json: Annotated[bool, typer.Option("--json", help="Print one snapshot as JSON and exit.")] = False,
) -> int:
    """Watch the cluster live: totals, replicas and the oldest inflight requests.

    Press a key to order the requests by age, silence, tokens, rate, model or worker. Without a terminal it prints once.
    """
    from lifecycle.cli.operate import operate

    async def work(store: Store) -> int:
        trend = Trend()
        view = await _poll_cluster(store, trend, limit, match)
        if json:
            output.write_json(view.to_json())
        elif not sys.stdout.isatty():
            _print_once(view, _KEYS[sort], match)
        else:
            await _watch(store, trend, view, limit, match, interval_secs, _KEYS[sort])
        return 0

    return operate(settings, work)


async def _poll_cluster(store: Store, trend: Trend, limit: int, match: str) -> View:
    from lifecycle.queries import cluster
    from lifecycle.queries.browse import oldest

    snapshot, listing = await asyncio.gather(cluster.snapshot(store), oldest(store, limit, match))
    return trend.follow(snapshot, [row.record for row in listing.rows], listing.as_of)


async def _watch(
    store: Store, trend: Trend, view: View, limit: int, match: str, interval_secs: float, order: str
) -> None:
    from rich.console import Console
    from rich.live import Live

    loop, notice = asyncio.get_running_loop(), ""
    with (
        _keys() as keys,
        Live(render(view, order, match=match), console=Console(), screen=True, auto_refresh=False) as live,
    ):
        due = loop.time() + interval_secs
        while True:
            key = await _pressed(keys, due)
            if key in ("q", "Q"):
                return
            order = key if key in ORDERS else order
            if loop.time() >= due:
                due = loop.time() + interval_secs
                try:
                    view, notice = await _poll_cluster(store, trend, limit, match), ""
                except StoreUnavailable as failure:  # keep showing the last view, and say that it is out of date
                    notice = f"Out of date: {failure.message}"
            live.update(render(view, order, match=match, notice=notice), refresh=True)


async def _pressed(keys: asyncio.Queue[str], due: float) -> str:
    """Return the next key, or an empty string once the refresh is due."""
    try:
        async with asyncio.timeout_at(due):
            return await keys.get()
    except TimeoutError:
        return ""


@contextmanager
def _keys() -> Iterator[asyncio.Queue[str]]:
    """Provide a queue of the keys that are pressed; it stays empty if standard input is not a terminal."""
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


def _print_once(view: View, order: str, match: str) -> None:
    from rich.console import Console

    Console(width=200).print(render(view, order, match=match))
