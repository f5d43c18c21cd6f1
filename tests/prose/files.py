"""List the project's own text files."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = (".py", ".lua", ".js", ".mjs", ".jsx", ".ts", ".css", ".html", ".sh")
DATA = (".toml", ".yaml", ".yml", ".service", ".conf", ".acl")


@cache
def tracked() -> tuple[str, ...]:
    """Return the paths of all files that git tracks or would track, relative to the root.

    Outside a git checkout (an unpacked source archive) all files below the root are returned.
    """
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        return tuple(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
    return tuple(name for name in listing.stdout.splitlines() if (ROOT / name).is_file())


def with_endings(*endings: str) -> list[str]:
    """Return the tracked files with one of these endings."""
    return [name for name in tracked() if name.endswith(endings)]


def read(name: str) -> str:
    """Return the text of a tracked file."""
    return (ROOT / name).read_text()
