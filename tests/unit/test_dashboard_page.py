"""The dashboard's files as plain HTTP serves them: the right types, nothing from elsewhere, nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.resources import files

import httpx2
import pytest
from fastapi import FastAPI

from frontend.routes import page

TYPES = {
    "/": "text/html; charset=utf-8",
    "/dashboard.css": "text/css; charset=utf-8",
    "/dashboard.js": "text/javascript; charset=utf-8",
    "/favicon.svg": "image/svg+xml",
}


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(page.router)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://frontend") as client:
        yield client


@pytest.mark.parametrize("path", TYPES)
async def test_each_file_has_its_type_and_the_policy(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES[path]
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/index.html", "/dashboard/index.html", "/../app.py", "/dashboard.js/"])
async def test_nothing_else_is_served(http: httpx2.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code in (307, 404)


async def test_the_page_refers_to_its_own_files_only(http: httpx2.AsyncClient) -> None:
    html = (await http.get("/")).text
    references = re.findall(r'(?:href|src)="([^"]*)"', html)
    assert sorted("/" + name for name in references) == sorted(set(TYPES) - {"/"})
    assert "style=" not in html
    assert not re.search(r"\son\w+=", html)


async def test_the_script_writes_text_only_and_asks_its_own_frontend(http: httpx2.AsyncClient) -> None:
    script = (await http.get("/dashboard.js")).text
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"):
        assert sink not in script


def test_every_file_of_the_folder_is_served() -> None:
    folder = {path.name for path in (files("frontend") / "dashboard").iterdir()}
    assert folder == {"index.html", "dashboard.css", "dashboard.js", "favicon.svg"}
