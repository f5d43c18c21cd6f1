"""Loading engines by their names, and closing them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.settings import load
from tests.generation import tokens
from worker.engines import EngineLoadError, close_engine, load_engine
from worker.engines.echo import EchoEngine
from worker.engines.openai import OpenAIEngine

USER_MODULE = """
import functools

async def generate(request, context):
    yield "hi"

async def extra(greeting, request, context):
    yield greeting

partial = functools.partial(extra, "hello")

class Engine:
    async def __call__(self, request, context):
        yield "instance"

    async def method(self, request, context):
        yield "method"

engine = Engine()

def plain(request, context):
    return generate(request, context)

async def never_yields(request, context):
    return "hi"

async def too_few(request):
    yield "hi"

number = 3
"""


@pytest.fixture
def user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules nobody else has; the import system forgets them afterwards."""
    (tmp_path / "my_engine.py").write_text(USER_MODULE)
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no GPU\\nat all')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_engine", "needs_more", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("generate", "hi"),
        ("partial", "hello"),
        ("engine", "instance"),
        ("engine.method", "method"),
        ("plain", "hi"),
    ],
)
@pytest.mark.usefixtures("user_directory")
async def test_loads_what_can_be_an_engine(attribute: str, said: str) -> None:
    engine = load_engine(f"my_engine:{attribute}", load())
    assert await tokens(engine, {}) == [said]
    await close_engine(engine)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("nonsense", "use echo, openai or module:function"),
        (":generate", "use echo, openai or module:function"),
        ("my_engine:", "use echo, openai or module:function"),
        ("no_such_module:generate", "no module 'no_such_module'"),
        ("my_engine.deeper:generate", "no module 'my_engine.deeper'"),
        ("needs_more:generate", "No module named 'not_installed_anywhere'"),
        ("broken:generate", "RuntimeError: no GPU"),
        ("my_engine:generated", "'my_engine' has no 'generated'"),
        ("my_engine:engine.nothing", "has no 'engine.nothing'"),
        ("my_engine:number", "is of type int; name an async generator function"),
        ("my_engine:Engine", "is the class Engine; name an async generator function"),
        ("my_engine:never_yields", "never yields"),
        ("my_engine:too_few", "does not take (request, context)"),
        ("openai", "--upstream URL"),
    ],
)
@pytest.mark.usefixtures("user_directory")
def test_says_in_one_line_why_it_cannot_load(spec: str, hint: str) -> None:
    with pytest.raises(EngineLoadError) as raised:
        load_engine(spec, load({"openai_base_url": ""}))
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_loads_the_built_in_ones() -> None:
    settings = load({"openai_base_url": "http://127.0.0.1:1/v1"})
    assert isinstance(load_engine("echo", settings), EchoEngine)
    assert isinstance(load_engine("openai", settings), OpenAIEngine)


@pytest.mark.parametrize("url", ["localhost:8001", "ftp://host/v1", "http://", "http://host:port", "/v1"])
def test_an_upstream_must_be_a_url(url: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_BASE_URL"):
        OpenAIEngine(url)


async def test_closing_an_engine_that_holds_nothing_is_fine() -> None:
    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"

    await close_engine(generate)
    await close_engine(OpenAIEngine("http://127.0.0.1:1"))
