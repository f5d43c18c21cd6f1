"""One fault, and the copy of the tree in which it is planted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("lifecycle", "frontend", "worker", "tests", "pyproject.toml")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules", "recorded", "llama_cpp")


class Mutant(NamedTuple):
    """A fault: in `file`, the text `before`, which is there once, becomes `after`.

    `spec` names the same fault in the specification (tests/spec/planted.py), '' when it has no counterpart there.
    """

    what: str
    file: str
    before: str
    after: str
    spec: str = ""

    def applied(self, text: str) -> str:
        """Return the text of its file with the fault. Raises ValueError when `before` is not there exactly once."""
        if text.count(self.before) != 1:
            raise ValueError(f"{self.file} has the text {self.before!r} {text.count(self.before)} times, not once")
        return text.replace(self.before, self.after)


@contextmanager
def planted(mutant: Mutant) -> Iterator[Path]:
    """Provide a copy of the tree with this fault."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        root = Path(directory)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=_NOT_COPIED)
            else:
                shutil.copy(source, root / name)
        path = root / mutant.file
        path.write_text(mutant.applied(path.read_text()))
        yield root
