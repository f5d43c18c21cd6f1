"""The project's prose: plain words, whole sentences, references that lead somewhere, lines that fit into a diff."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.prose import checks
from tests.prose.files import CODE, DATA, read, tracked, with_endings

# Files that must name the retired words, or in which they have another meaning.
_EXEMPT = ("tests/prose/checks.py", "tests/unit/test_prose.py", "LICENSE", "CODE_OF_CONDUCT.md")
# Words of other vocabularies: names in an API, or of a protocol.
_FOREIGN = re.compile(r"heartbeat|ADOPT_CLIENT_TIMEOUT|adopt_client_timeout")


def _found(names: list[str], check: str) -> list[str]:
    run = getattr(checks, check)
    return [f"{name}:{fault}" for name in names if name not in _EXEMPT for fault in run(read(name))]


def test_no_retired_word_is_used() -> None:
    names = [name for name in with_endings(*CODE, *DATA, ".md") if name not in _EXEMPT]
    found = [f"{name}:{fault}" for name in names for fault in checks.retired_words(_FOREIGN.sub("", read(name)))]
    assert not found, "see docs/glossary.md for the word to use:\n" + "\n".join(found)


def test_no_docstring_opens_with_a_fragment() -> None:
    found = _found(with_endings(".py"), "fragments")
    assert not found, "open with a verb:\n" + "\n".join(found)


def test_every_named_file_and_module_exists() -> None:
    files = tracked()
    names = [name for name in with_endings(*CODE, *DATA, ".md") if name not in _EXEMPT]
    found = [f"{name}:{fault}" for name in names for fault in checks.dangling(read(name), files)]
    assert not found, "\n".join(found)


def test_markdown_can_be_read_in_a_diff() -> None:
    found = _found(with_endings(".md"), "long_lines")
    assert not found, "\n".join(found)


def test_every_table_has_a_header_row() -> None:
    found = _found(with_endings(".md"), "headless_tables")
    assert not found, "\n".join(found)


def test_the_glossary_explains_each_term_once_in_one_order() -> None:
    text = read("docs/glossary.md")
    terms = re.findall(r"^\*\*([^*]+)\*\*: [A-Z`]", text, re.MULTILINE)
    assert len(terms) > 30
    assert terms == sorted(set(terms), key=str.lower)
    words = {"request", "frontend", "worker", "replica", "lease", "heartbeat", "reaper", "attempt", "inflight", "event"}
    assert words <= {term.lower() for term in terms}


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        ("retired_words", "A replica is buried by the reaper."),
        ("retired_words", "def give_to_heir(): ..."),
        ("fragments", 'def f():\n    """Whether it holds."""\n'),
        ("fragments", '"""What a module is."""\n'),
        ("long_lines", "word " * 21),
        ("headless_tables", "| | |\n|---|---|\n| a | b |"),
    ],
)
def test_each_check_finds_a_planted_fault(check: str, planted: str) -> None:
    found: Iterator[str] = getattr(checks, check)(planted)
    assert list(found)


@pytest.mark.parametrize(
    "planted",
    ["see lifecycle/none.py", "see `none.py`", "see `lifecycle.none.thing`", "tests/unit/test_nothing.py"],
)
def test_a_planted_dangling_reference_is_found(planted: str) -> None:
    assert list(checks.dangling(planted, tracked()))
    assert not list(checks.dangling("lifecycle/errors.py, `lifecycle.errors.Fenced`, tests/unit/test_*.py", tracked()))
