"""Every relative link in the Markdown files leads to a file, and to a heading of it."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")
_FENCED, _INLINE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL), re.compile(r"`[^`\n]+`")
_NOT_OURS = re.compile(r"(^|/)(\..+|node_modules)/")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


def pages() -> list[Path]:
    """Ours; not those of an environment in the same folder."""
    return [path for path in sorted(ROOT.rglob("*.md")) if not _NOT_OURS.search(str(path.relative_to(ROOT)))]


@cache
def anchors(path: Path) -> frozenset[str]:
    """Return a page's anchors as GitHub makes them: lower case, no punctuation, hyphens, numbers for repeated ones."""
    found: Counter[str] = Counter()
    for heading in _HEADING.findall(_FENCED.sub("", path.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found[re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")] += 1
    return frozenset(f"{slug}-{n}" if n else slug for slug, times in found.items() for n in range(times))


def broken(path: Path) -> list[str]:
    links = [match[1] or match[2] for match in _LINK.finditer(_INLINE.sub("", _FENCED.sub("", path.read_text())))]
    return [link for link in links if not re.match(r"[a-z]+:", link) and not _leads_somewhere(path, link)]


def _leads_somewhere(path: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    there = path.parent / file if file else path
    return there.exists() and (not anchor or anchor in anchors(there))


def test_every_link_leads_somewhere() -> None:
    assert {str(path.relative_to(ROOT)): links for path in pages() if (links := broken(path))} == {}


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `word`, two\n## Again\n## Again\n[a](#one-word-two) [b](#again-1) [c](page.md#again) [d](http://x/y)\n"
        '[e](#again-2) [f](gone.md) [g](page.md#gone) `[h](code.md)`\n<img src="gone.png">\n```\n# no heading\n```\n'
    )
    assert broken(page) == ["#again-2", "gone.md", "page.md#gone", "gone.png"]
