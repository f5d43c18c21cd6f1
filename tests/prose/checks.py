"""Find faults in a text. Each check returns one line for each fault, with the number of the line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

RETIRED = {
    r"bur(y|ies|ied|ials?|ying)": "expire, clean up",
    r"graves?": "pending cleanup",
    r"tombstones?": "expired replicas",
    r"heirs?": "new owner",
    r"adopt(s|ed|ing|ion)?": "reassign",
    r"beats?|beating": "heartbeat",
    r"patience": "retry_for_secs, stall timeout",
    r"doubt(s|ed|ful|ing)?": "mark stale, recheck",
    r"hangups?": "disconnect",
    r"doors?": "fast path",
    r"tethers?": "parent-death pipe",
    r"pour(s|ed|ing)?": "write",
    r"intakes?": "queue consumer",
    r"goodbyes?": "leave",
    r"unheld": "not held locally",
    r"(draws?|drawn|drew|drawing) (the )?consequences": "clean up",
}
_RETIRED = re.compile(rf"(?<![A-Za-z])({'|'.join(RETIRED)})(?![A-Za-z])", re.IGNORECASE)
_FRAGMENT = re.compile(r"(What|Who|Whose|Whom|Whether|Where|Of|As|By|That which|Nothing|Nobody)\b(?! if\b)")
_PATH = re.compile(
    r"(?<![\w./-])((?:lifecycle|frontend|worker|tests|benchmarks|deploy|docs|examples)/[\w./*-]+"
    r"\.(?:py|lua|md|js|mjs|css|html|sh|yaml|yml|json|toml|svg|png|acl|conf))(?![\w/])"
)
_BARE = re.compile(r"`([a-z_*]+\.(?:py|lua))`")
_DOTTED = re.compile(r"(?:`|-m |import |from )(lifecycle(?:\.[a-z]\w*)+)(?!\w|\*)")
_NAMES_OF_TELEMETRY = (
    "lifecycle.request",
    "lifecycle.status",
    "lifecycle.attempt",
    "lifecycle.cancel",
    "lifecycle.worker",
)
LONGEST_LINE, LONGEST_ROW = 100, 160


def retired_words(text: str) -> Iterator[str]:
    """Find words that the glossary has replaced."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _RETIRED.finditer(line.replace("_", " ")):
            yield f"{number}: the retired word {match[0]!r}"


def fragments(source: str) -> Iterator[str]:
    """Find docstrings in Python source that open with a fragment instead of a verb or a noun phrase."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring and _FRAGMENT.match(docstring):
                line = getattr(node, "lineno", 1)
                yield f"{line}: the docstring opens with a fragment: {docstring.splitlines()[0]!r}"


def dangling(text: str, files: Sequence[str]) -> Iterator[str]:
    """Find names of files and modules that do not exist. `files` are all paths of the project."""
    names = {name.rpartition("/")[2] for name in files}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}
    for number, line in enumerate(text.splitlines(), 1):
        for path in _PATH.findall(line):
            if not any(name == path or fnmatch(name, path) for name in files):
                yield f"{number}: {path} does not exist"
        for name in _BARE.findall(line):
            if not any(fnmatch(known, name) for known in names):
                yield f"{number}: no file is called {name}"
        for dotted in _DOTTED.findall(line):
            if not dotted.startswith(_NAMES_OF_TELEMETRY) and not _resolves(dotted, modules):
                yield f"{number}: {dotted} is no module"


def _resolves(dotted: str, modules: set[str]) -> bool:
    """Return whether a dotted name is a module, or an attribute (of an attribute) of one below a top-level package."""
    if dotted in modules:
        return True
    parts = dotted.split(".")
    return any(".".join(parts[:length]) in modules for length in range(len(parts) - 1, 1, -1))


def long_lines(markdown: str) -> Iterator[str]:
    """Find lines of Markdown that cannot be read in a diff. Code blocks are exempt; rows of tables may be longer."""
    in_code = False
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        limit = LONGEST_ROW if line.startswith("|") else LONGEST_LINE
        if not in_code and len(line) > limit:
            yield f"{number}: {len(line)} characters, at most {limit} are allowed"


def headless_tables(markdown: str) -> Iterator[str]:
    """Find tables whose header row is empty."""
    for number, line in enumerate(markdown.splitlines(), 1):
        if re.fullmatch(r"\|(\s*\|)+\s*", line):
            yield f"{number}: the table has no header row"
