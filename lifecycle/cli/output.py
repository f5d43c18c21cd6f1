"""Print tables for people and JSON for programs. Colours appear only on a terminal, and not with NO_COLOR."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, TextIO

import orjson

from lifecycle.cli.scrubbing import scrubbed
from lifecycle.types import RequestRecord, Status

RED, GREEN, YELLOW, CYAN = 31, 32, 33, 36
STATUS_COLORS = {
    Status.QUEUED: YELLOW,
    Status.RUNNING: CYAN,
    Status.COMPLETED: GREEN,
    Status.FAILED: RED,
    Status.CANCELLED: YELLOW,
}
NONE = "-"


class Cell(NamedTuple):
    """A table cell: its text, and an ANSI foreground colour (0 for none)."""

    text: str
    color: int = 0


def use_color(out: TextIO) -> bool:
    """Return whether this output shows colours: it is a terminal, and NO_COLOR is not set."""
    return out.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, color: int, *, out: TextIO | None = None) -> str:
    """Return the text in this ANSI colour if the output (standard output by default) shows colours."""
    return f"\x1b[{color}m{text}\x1b[0m" if color and use_color(out or sys.stdout) else text


def printable(text: str, keep: Collection[str] = "") -> str:
    """Replace characters that could control a terminal, since names and reasons come from clients."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else "\N{REPLACEMENT CHARACTER}" for c in text)


def write(text: str) -> None:
    """Print a line on standard output."""
    sys.stdout.write(text + "\n")


def write_json(value: Any) -> None:
    """Print JSON: indented on a terminal, otherwise on one line."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    write(orjson.dumps(value, option=option).decode())


def complain(text: str) -> None:
    """Print one line on standard error, without secrets; line breaks in the text become spaces."""
    sys.stderr.write(printable(scrubbed(" ".join(text.split()))) + "\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> list[str]:
    """Return lines with aligned columns; a column of numbers is aligned to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(*cells, strict=True)) or [()] * len(heads)
    widths = [max(map(len, (head, *(c.text for c in column)))) for head, column in zip(heads, columns, strict=True)]
    right = [bool(column) and all(c.text == NONE or c.text[:1].isdigit() for c in column) for column in columns]
    lines = []
    for row in ([Cell(head) for head in heads], *cells):
        padded = [
            paint(c.text.rjust(width) if flush else c.text.ljust(width), c.color)
            for c, width, flush in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _cell(value: str | Cell) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return cell._replace(text=printable(cell.text) or NONE)


def duration(secs: float | None) -> str:
    """Format seconds as `0.4s`, `12s`, `3m05s`, `2h10m` or `3d04h`; None as `-`, and a negative value as `0.0s`."""
    if secs is None:
        return NONE
    secs = max(0.0, secs)
    if secs < 9.95:
        return f"{secs:.1f}s"
    whole = round(secs)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def status_cell(record: RequestRecord) -> Cell:
    """Return the status; while a cancellation is not confirmed, with its mode: `running (kill)`."""
    ending = "" if record.status.terminal or not record.cancel_mode else f" ({record.cancel_mode})"
    return Cell(record.status + ending, STATUS_COLORS[record.status])
