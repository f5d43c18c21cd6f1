"""Loads the Lua scripts. Each line `--- @include NAME…` is replaced by the files of that name in `lua/include/`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--- @include (.+)$", re.MULTILINE)
_SHEBANG = re.compile(r"\A#!lua[^\n]*\n")
_FOLDER = files("lifecycle.store") / "lua"


@dataclass(frozen=True, slots=True)
class Script:
    """A script with its includes; `sha` is its SHA-1 for EVALSHA."""

    name: str
    source: str
    sha: str

    def without_shebang(self) -> Script:
        """Return the script without its `#!lua flags=…` line, for a server that cannot parse it (fakeredis)."""
        return _script(self.name, _SHEBANG.sub("\n", self.source))


def _script(name: str, source: str) -> Script:
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest())


@cache
def load(name: str) -> Script:
    """Return the script `lua/<name>.lua`. Raises OSError when there is none."""
    source = (_FOLDER / f"{name}.lua").read_text("utf-8")

    def include(match: re.Match[str]) -> str:
        return "\n".join((_FOLDER / "include" / f"{part}.lua").read_text("utf-8") for part in match[1].split())

    return _script(name, _INCLUDE.sub(include, source))


def names() -> list[str]:
    """Return the names of all scripts."""
    return sorted(entry.name.removesuffix(".lua") for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))


def name_of(reference: str) -> str:
    """Return the name of a script from its SHA-1 or its source. Raises KeyError for one that is not ours."""
    return _names_by_reference()[reference]


@cache
def _names_by_reference() -> dict[str, str]:
    scripts = [load(name) for name in names()]
    return {script.sha: script.name for script in scripts} | {script.source: script.name for script in scripts}
