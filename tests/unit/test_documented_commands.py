"""The commands, flags and settings that the documentation names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from lifecycle.cli.main import app
from tests.unit.test_links import ROOT, pages

# In a block of shell commands at a line's beginning or behind another command; in a sentence within backquotes.
_SHELL = re.compile(r"^(?:.*&& *)?lifecycle ([a-z].*)$", re.MULTILINE)
_INLINE = re.compile(r"`lifecycle ([a-z][^`]*)`")
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Each without `lifecycle`, its comment, and what a pipe or a redirection takes on."""
    lines = [*_INLINE.findall(text), *(line for block in _BLOCK.findall(text) for line in _SHELL.findall(block))]
    return [shlex.split(re.split(r" #| && | \| |[>;&]", line.replace("…", ""))[0]) for line in lines]


def unknown(words: list[str]) -> str | None:
    """The first word that the command line would not take."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        if words[0] not in command.commands:
            return words[0]
        command, words = command.commands[words[0]], words[1:]
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    return next((word for word in words if word.startswith("-") and word.partition("=")[0] not in options), None)


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_one(path: Path) -> None:
    wrong = {" ".join(words): word for words in commands(path.read_text()) if (word := unknown(words))}
    assert wrong == {}


def test_commands_are_found_and_looked_at() -> None:
    block = "lifecycle nap 1   # sleep\ntrue && lifecycle cancel r1 --wait | cat --all\n"
    text = f"`lifecycle ps --jsn`\n```bash\n{block}```\n`lifecycle`\n"
    assert [unknown(words) for words in commands(text)] == ["--jsn", "nap", None]


def test_every_setting_that_is_named_is_one() -> None:
    """Each setting in the pages and in deploy/ is on the reference page, which another test compares with the code."""
    reference = ROOT / "docs" / "reference" / "settings.md"
    settings = set(re.findall(r"^\| `(LIFECYCLE_\w+)`", reference.read_text(), re.MULTILINE))
    deployed = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    named = {
        (str(path.relative_to(ROOT)), name)
        for path in (*pages(), *deployed, ROOT / "compose.yaml")
        for name in re.findall(r"\bLIFECYCLE_[A-Z_]*[A-Z]\b", path.read_text())
    }
    assert {place for place in named if place[1] not in settings} == set()
