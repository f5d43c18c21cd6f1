"""The programs on the pages about the JavaScript client."""

from __future__ import annotations

import re
from pathlib import Path

from tests.clients.js.package import SOURCE
from tests.cluster import ROOT

PAGES = (SOURCE / "README.md", ROOT / "docs" / "javascript.md")
_BLOCK = re.compile(r"^```(js|ts)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Return the language and the code of each block. Those in `js` run in Node.js; those in `ts` need a page."""
    return _BLOCK.findall(page.read_text())
