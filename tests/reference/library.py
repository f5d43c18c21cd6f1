"""Write the public names of the library, with their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import lifecycle
from tests import surface

_WIDTH = 99


def text() -> str:
    """Return a section for each public name."""
    return "\n\n".join(part for name in lifecycle.__all__ for part in _sections(name, getattr(lifecycle, name)))


def _sections(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield f"## `lifecycle.{name}`\n\n{_prose(value)}"
        for member in value.__all__:
            yield from _sections(f"{name}.{member}", getattr(value, member))
    elif name != "__version__":
        lines = [line.strip() for line in surface.lines(name, value)]
        yield f"## `{name}`\n\n```text\n{chr(10).join(map(_wrapped, lines))}\n```\n\n{_prose(value)}"
        if inspect.isclass(value):
            for member, found in surface.members(value):
                if inspect.getdoc(found):
                    yield f"### `{name}.{member}`\n\n{_prose(found)}"


def _wrapped(line: str) -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _prose(value: Any) -> str:
    """Return a docstring with lines of at most 100 characters. Lists and indented code stay what they are."""
    paragraphs = re.split(r"\n\s*\n", inspect.getdoc(value) or "")
    return "\n\n".join(_paragraph(paragraph) for paragraph in paragraphs)


def _paragraph(paragraph: str) -> str:
    if paragraph.startswith("    "):
        return f"```text\n{textwrap.dedent(paragraph)}\n```"
    if not paragraph.startswith("- "):
        return _filled(paragraph)
    items = re.split(r"\n(?=- )", paragraph)
    return "\n".join(_filled(item, "  ") for item in items)


def _filled(paragraph: str, indent: str = "") -> str:
    joined = " ".join(line.strip() for line in paragraph.splitlines())
    kept = re.sub(r"`[^`]+`", lambda found: found[0].replace(" ", "\0"), joined)
    filled = textwrap.fill(kept, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")
