"""The lines of several processes on one terminal: `name | text`, and below them a line that says what is awaited."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_COLORS = (36, 33, 35, 32, 34, 96, 93, 95)  # ANSI foregrounds; no red, that is for notices of failure
_RED = 31
_ERASE_LINE = "\r\x1b[2K"


class Console:
    """Writes to `out` (standard output). In colour, and with a moving progress line, only on a terminal.

    An output that was closed (`lifecycle up | head`) is given up silently: the processes are to run on.
    """

    def __init__(self, out: TextIO | None = None, *, terminal: bool | None = None) -> None:
        self._out: TextIO | None = out or sys.stdout
        self._terminal = self._out.isatty() if terminal is None else terminal
        self._color = self._terminal and not os.environ.get("NO_COLOR")
        self._sources: dict[str, int] = {}
        self._width = 0
        self._progress = ""

    def introduce(self, source: str) -> None:
        """Gives the source its colour and lets all names line up from now on."""
        self._sources.setdefault(source, _COLORS[len(self._sources) % len(_COLORS)])
        self._width = max(self._width, len(source))

    def line(self, source: str, text: str) -> None:
        self.introduce(source)
        prefix = self._paint(f"{source:<{self._width}} |", self._sources[source])
        self._write(f"{prefix} {text}\n")

    def notice(self, text: str, *, failure: bool = False) -> None:
        """A word of the program itself."""
        self._write((self._paint(text, _RED) if failure else text) + "\n")

    def progress(self, text: str) -> None:
        """What is awaited: one line rewritten in place on a terminal, else a line for each change. Empty ends it."""
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
