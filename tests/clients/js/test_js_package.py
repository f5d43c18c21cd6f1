"""The npm package of the JavaScript client: what is in it, that its types are right, and its own tests."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.clients.js.package import SOURCE, Package, execute
from tests.clients.js.pages import PAGES, blocks_of
from tests.cluster import ROOT

LONGEST_FILE = 400

pytestmark = [pytest.mark.slow, pytest.mark.clients]


def test_it_has_what_users_need_and_nothing_else(package: Package) -> None:
    modules = [path.stem for path in (SOURCE / "src").glob("*.ts")]
    built = [f"dist/{module}{ending}" for module in modules for ending in (".js", ".d.ts")]
    assert list(package.files) == sorted(["LICENSE", "NOTICE", "README.md", "package.json", *built])


def test_it_has_no_dependencies_and_cannot_be_published_by_accident(package: Package) -> None:
    described = json.loads((package.installed / "package.json").read_text())
    assert not {"dependencies", "peerDependencies", "optionalDependencies"} & set(described)
    assert described["private"] is True
    assert set(described["devDependencies"]) == {"typescript"}
    assert described["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("LICENSE", "NOTICE"):
        assert (package.installed / name).read_bytes() == (ROOT / name).read_bytes()


def test_its_own_tests_pass(package: Package) -> None:
    tests = sorted(str(path) for path in (package.build / "test").glob("*.test.mjs"))
    assert re.search(r"^# pass [1-9]\d*$", execute(["node", "--test", *tests], package.build), re.MULTILINE)


def test_the_types_hold_for_those_who_use_it(package: Package) -> None:
    """`consumer.ts` uses everything, and has what must be refused."""
    (package.folder / "consumer.ts").write_text((Path(__file__).parent / "consumer.ts").read_text())
    check_types(package, package.folder / "consumer.ts")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_types_hold_in_what_the_pages_show(package: Package, page: Path) -> None:
    blocks = blocks_of(page)
    assert blocks
    for number, (language, code) in enumerate(blocks):
        path = package.folder / f"{page.stem}-{number}.{'mts' if language == 'ts' else 'mjs'}"
        path.write_text(code)
        check_types(
            package, path, *([] if language == "ts" else ["--allowJs", "--checkJs", "--noImplicitAny", "false"])
        )


def check_types(package: Package, path: Path, *further: str) -> None:
    tsc = str(package.build / "node_modules" / ".bin" / "tsc")
    options = "--strict --exactOptionalPropertyTypes --noEmit --target es2022 --module nodenext --lib es2022,dom"
    execute([tsc, *options.split(), *further, str(path)], package.folder)


def test_the_sources_are_short() -> None:
    for path in (*(SOURCE / "src").glob("*.ts"), *(SOURCE / "test").glob("*.mjs")):
        lines = path.read_text().splitlines()
        assert len(lines) <= LONGEST_FILE, path
        assert max(map(len, lines)) <= 120, path
