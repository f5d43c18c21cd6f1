"""The dashboard's files as plain HTTP serves them: the right types, nothing from elsewhere, nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.resources import files

import httpx2
import pytest
from fastapi import FastAPI

from frontend.routes import page
from lifecycle.fastapi.errors import ApiError

STATIC = files("frontend.dashboard") / "static"
NAMES = sorted(entry.name for entry in STATIC.iterdir())
PATHS = ["/" if name == "index.html" else f"/dashboard/{name}" for name in NAMES]
SCRIPTS = [name for name in NAMES if name.endswith(".js")]
TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
LONGEST_MODULE = 200
SINKS = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "new Function",
    "http://",
    "https://",
)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(page.router)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://frontend") as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_each_file_has_its_type_and_the_policy(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES.get(path.rpartition(".")[2], "text/html; charset=utf-8")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/index.html", "/dashboard/", "/dashboard/a/b", "/dashboard/..%2Fboard.py"])
async def test_no_other_path_is_served(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (307, 404)


@pytest.mark.parametrize("name", ["index.html", "other.js", "..board.py"])
async def test_no_other_file_is_served(http: httpx2.AsyncClient, name: str) -> None:
    with pytest.raises(ApiError, match="no file"):
        await http.get(f"/dashboard/{name}")


async def test_the_page_refers_to_its_own_files_only(http: httpx2.AsyncClient) -> None:
    html = (await http.get("/")).text
    references = set(re.findall(r'(?:href|src)="([^"]*)"', html))
    assert references <= {path.removeprefix("/") for path in PATHS}
    assert "style=" not in html
    assert not re.search(r"\son\w+=", html)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_writes_text_only_and_is_short(name: str) -> None:
    script = (STATIC / name).read_text()
    namespace = '"http://www.w3.org/2000/svg"'  # a name, not an address
    assert [sink for sink in SINKS if sink in script.replace(namespace, "")] == []
    assert len(script.splitlines()) < LONGEST_MODULE


def test_modules_import_each_other_and_nothing_else() -> None:
    imported = {match for name in SCRIPTS for match in re.findall(r'from "([^"]*)"', (STATIC / name).read_text())}
    assert {"./" + name for name in SCRIPTS} - {"./main.js"} == imported


def test_every_element_a_module_asks_for_is_on_the_page() -> None:
    html = (STATIC / "index.html").read_text()
    asked = {match for name in SCRIPTS for match in re.findall(r'\$\("([^"]+)"\)', (STATIC / name).read_text())}
    assert asked - set(re.findall(r'\bid="([^"]+)"', html)) == set()
