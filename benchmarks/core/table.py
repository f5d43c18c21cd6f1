"""The result of a measurement: a title, columns and rows, printed as plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.report import number

Cell = str | float | int


@dataclass(slots=True)
class Table:
    """Rows of cells under column titles; the first column is a label, the others are figures. `note` explains them."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""

    def add(self, *cells: Cell) -> None:
        """Add one row. Raises ValueError when it does not have one cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"a row of {self.title!r} has {len(cells)} cells, it needs {len(self.columns)}")
        self.rows.append(cells)

    def text(self) -> str:
        """Return the table as lines of text: labels to the left, figures to the right."""
        lines = [list(self.columns), *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        printed = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in printed), *([self.note] if self.note else [])])


def _shown(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else number(cell)
