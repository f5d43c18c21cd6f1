"""Format Markdown tables and lists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_WIDTH = 100


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a header row."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """Return `text` as code that may also stand in a table."""
    return f"`{text}`" if "|" not in text else "<code>" + text.replace("|", "&#124;") + "</code>"


def items(texts: Iterable[str]) -> str:
    """Return a list with lines of at most 100 characters. Code is not broken across lines."""
    return "\n".join(_item(text) for text in texts)


def _item(text: str) -> str:
    kept = re.sub(r"`[^`]+`", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.fill(
        kept, _WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return lines.replace("\0", " ")
