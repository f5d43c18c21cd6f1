"""Print the lines of several processes as `name | text`, with a progress line below them."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_COLORS = (36, 33, 35, 32, 34, 96, 93, 95)  # ANSI foreground colours; red is reserved for failures
_RED = 31
_ERASE_LINE = "\r\x1b[2K"


class Console:
    """Write to `out`, standard output by default. Colours and a progress line that moves appear only on a terminal.

    When the output is closed (`lifecycle up | head`), it is ignored and the processes go on.
    """

    def __init__(self, out: TextIO | None = None, *, terminal: bool | None = None) -> None:
        self._out: TextIO | None = out or sys.stdout
        self._terminal = self._out.isatty() if terminal is None else terminal
        self._color = self._terminal and not os.environ.get("NO_COLOR")
        self._colors_by_name: dict[str, int] = {}
        self._width = 0
        self._progress = ""

    def introduce(self, name: str) -> None:
        """Choose the colour of a process's lines, and align all names from now on."""
        self._colors_by_name.setdefault(name, _COLORS[len(self._colors_by_name) % len(_COLORS)])
        self._width = max(self._width, len(name))

    def line(self, name: str, text: str) -> None:
        """Print one line of a process."""
        self.introduce(name)
        prefix = self._paint(f"{name:<{self._width}} |", self._colors_by_name[name])
        self._write(f"{prefix} {text}\n")

    def notice(self, text: str, *, failure: bool = False) -> None:
        """Print a message of this program itself."""
        self._write((self._paint(text, _RED) if failure else text) + "\n")

    def progress(self, text: str) -> None:
        """Show what is awaited: one line rewritten in place on a terminal, otherwise one line for each change.

        An empty text ends it.
        """
        if text == self._progress:
            return
        self._progress = text
        if self._terminal:
            self._write("")
        elif text:
            self._write(text + "\n")

    def _paint(self, text: str, color: int) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._color else text

    def _write(self, text: str) -> None:
        if self._out is None:
            return
        if self._terminal:
            text = f"{_ERASE_LINE}{text}{self._progress}"
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):
            self._out = None
