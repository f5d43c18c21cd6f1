"""Loads the Lua scripts, in which three comments are replaced.

`--- @include NAME…` becomes the files of that name in `lua/include/`, which name what they use in the same way. Each
comes once, where it is named first, without the functions that the script does not use: each call of a script would
create them. `--- @permit COMMAND…` becomes a check that the user may run these commands, and `--- @permit` alone one
for all commands of the script. `--- @inner` begins a function with all that follows, whose functions then cost less.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--- @include (.+)$", re.MULTILINE)
_PERMIT = re.compile(r"^--- @permit( [A-Z ]+)?$", re.MULTILINE)
_CALL = re.compile(r"\b(?:call\(|call, |read_typed\(|unless_error\([^,]+, )'([A-Z]+)'")
_FUNCTION = re.compile(r"^local function (\w+)\((?:[^\n]* end|.*?^end)\n", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"\w+")
_INNER = "\n--- @inner\n"
_OPTIONAL = "MEMORY"  # scripts also work without it
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
    source = _without_unused(_with_includes(f"{name}.lua", set()))
    return _script(
        name,
        _with_local_call(
            _PERMIT.sub(lambda match: _check(match[1].split() if match[1] else commands_of(source)), source)
        ),
    )


def names() -> list[str]:
    """Return the names of all scripts."""
    return sorted(entry.name.removesuffix(".lua") for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))


def commands_of(source: str) -> list[str]:
    """Return the commands that a script cannot do without, such as `HSET`."""
    found = set(_CALL.findall(source))
    return sorted(found - {_OPTIONAL})


def _with_includes(path: str, included: set[str]) -> str:
    """Return a file with those that it includes, and that are not `included` yet."""

    def insert(match: re.Match[str]) -> str:
        texts = []
        for part in match[1].split():
            if part not in included:
                included.add(part)
                texts.append(_with_includes(f"include/{part}.lua", included))
        return "\n".join(texts)

    return _INCLUDE.sub(insert, (_FOLDER / path).read_text("utf-8"))


def _without_unused(source: str) -> str:
    """Return a script without the functions that nothing in it calls."""
    words = Counter(_WORD.findall(_COMMENT.sub("", source)))
    words["require_command"] += len(_PERMIT.findall(source))

    def used(match: re.Match[str]) -> str:
        own = _WORD.findall(_COMMENT.sub("", match[0]))
        return match[0] if words[match[1]] > own.count(match[1]) else ""

    kept = _FUNCTION.sub(used, source)
    return kept if kept == source else _without_unused(kept)


def _with_local_call(source: str) -> str:
    """Return a script that looks `redis.call` up once: each time costs a twentieth of a small command.

    All behind it is in one function more, and so is what follows each `--- @inner`. A function that is created there
    has the locals before it at hand; otherwise Lua searches them behind all other locals that functions use.
    """
    begun = source.replace("\nlocal P = KEYS[1]\n", f"\nlocal call, P = redis.call, KEYS[1]{_INNER}", 1)
    ends = "\nend)()" * begun.count(_INNER)
    return begun.replace("redis.call(", "call(").replace(_INNER, "\nreturn (function()\n") + ends


def _check(commands: Sequence[str]) -> str:
    """Return a line of Lua that checks commands. A call for each, or a table of them, would cost as much again."""
    permitted = " and ".join(f"is_permitted('{command}', P)" for command in commands)
    required = " ".join(f"require_command('{command}')" for command in commands)
    return f"if not ({permitted}) then {required} end"


def name_of(reference: str) -> str:
    """Return the name of a script from its SHA-1 or its source. Raises KeyError for one that is not ours."""
    return _names_by_reference()[reference]


@cache
def _names_by_reference() -> dict[str, str]:
    scripts = [load(name) for name in names()]
    return {script.sha: script.name for script in scripts} | {script.source: script.name for script in scripts}
