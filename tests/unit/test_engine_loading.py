"""Loading engines by `module:function`, by the path of a file, and those that are built in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import EngineLoadError, aclose
from lifecycle.execution.threaded import as_async
from lifecycle.settings import load
from worker.engines import find_engine
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

def synchronous(request, context):
    yield "hi"

class Synchronous:
    def __call__(self, request, context):
        yield "hi"

synchronous_model = Synchronous()

def threaded(request, context):
    yield "thread"

threaded.run_in_thread = True

async def both(request, context):
    yield "hi"

both.run_in_thread = True

async def picky(request, context):
    yield "hi"

picky.accepts = ["tools", "tool"]

async def boastful(request, context):
    yield "hi"

boastful.accepts = "tools"

number = 3

def declares(**attributes):
    async def generate(request, context):
        yield "hi"

    generate.__dict__.update(attributes)
    return generate

async def no_arguments():
    pass

async def one_argument(name):
    pass

def blocks():
    pass

class Lifecycle:
    concurrency = 1

    async def startup(self):
        pass

    async def health(self):
        pass

    async def aclose(self):
        pass

    async def __call__(self, request, context):
        yield "whole"

whole = Lifecycle()
no_concurrency = declares(concurrency=0)
true_concurrency = declares(concurrency=True)
text_concurrency = declares(concurrency="8")
sync_startup = declares(startup=blocks)
sync_health = declares(health=lambda: None)
sync_aclose = declares(aclose=blocks)
named_startup = declares(startup=one_argument)
text_health = declares(health="ok")
partial_startup = declares(startup=functools.partial(one_argument, "x"))
"""

SAYS = 'async def generate(request, context):\n    yield "{}"\n'


@pytest.fixture
def user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with modules of new and of taken names; the import system forgets them afterwards."""
    (tmp_path / "my_engine.py").write_text(USER_MODULE)
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no GPU\\nat all')\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "worker.py").write_text(SAYS.format("my worker"))
    (tmp_path / "notes.txt").write_text("no code\n")
    (tmp_path / "binary.py").write_bytes(b"\x00\xff")
    frontend, models = tmp_path / "frontend", tmp_path / "models"
    frontend.mkdir()
    (frontend / "__init__.py").write_text("")
    (frontend / "engine.py").write_text("from .words import generate\n")
    (frontend / "words.py").write_text(SAYS.format("my frontend"))
    models.mkdir()
    (models / "json.py").write_text("from beside import generate\n")
    (models / "beside.py").write_text(SAYS.format("beside"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("my_engine:generate", "hi"),
        ("my_engine:partial", "hello"),
        ("my_engine:engine", "instance"),
        ("my_engine:engine.method", "method"),
        ("my_engine:plain", "hi"),
        ("my_engine:threaded", "thread"),
        ("my_engine:whole", "whole"),
        ("my_engine:partial_startup", "hi"),
        ("my_engine.py:engine.method", "method"),
        ("./models/beside.py:generate", "beside"),
        ("models/json.py:generate", "beside"),  # a file named as a module that is loaded, and its neighbour
        ("worker.py:generate", "my worker"),
        ("worker:generate", "my worker"),
        ("frontend.engine:generate", "my frontend"),
    ],
)
@pytest.mark.usefixtures("user_directory")
async def test_loads_what_can_be_an_engine(spec: str, said: str) -> None:
    product = sys.modules["worker"]
    engine = find_engine(spec, load())()
    assert sys.modules["worker"] is product
    assert [event async for event in as_async(engine)({}, EngineContext("r"))] == [said]
    await aclose(engine)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("nonsense", "use echo, openai or module:function, or path/to/file.py:function"),
        (":generate", "use echo, openai or module:function"),
        ("my_engine:", "use echo, openai or module:function"),
        ("no_such_module:generate", "no module 'no_such_module'"),
        ("my_engine.deeper:generate", "no module 'my_engine.deeper'"),
        ("needs_more:generate", "No module named 'not_installed_anywhere'"),
        ("broken:generate", "RuntimeError: no GPU"),
        ("exits:generate", "SystemExit: 3"),
        ("./broken.py:generate", "RuntimeError: no GPU"),
        ("binary.py:generate", "cannot be imported; fix this first"),
        ("absent.py:generate", "absent.py is not there; name a Python file"),
        ("models/absent:generate", "models/absent is not there; name a Python file"),
        ("models/:generate", "models is a directory, not a file"),
        ("notes.txt:generate", "notes.txt is no Python file; its name must end with .py"),
        ("my_engine.py:generated", "file 'my_engine.py' has no 'generated'"),
        ("my_engine:generated", "module 'my_engine' has no 'generated'"),
        ("my_engine:engine.nothing", "has no 'engine.nothing'"),
        ("my_engine:number", "is of type int; name an async generator function"),
        ("my_engine:Engine", "is the class Engine; name an async generator function"),
        ("my_engine:never_yields", "never yields"),
        ("my_engine:too_few", "does not take (request, context)"),
        ("my_engine:synchronous", "is a synchronous generator function"),
        ("my_engine:synchronous_model", "is a synchronous generator function"),
        ("my_engine:both", "is asynchronous and has run_in_thread"),
        ("my_engine:picky", "accepts names 'tool'; it may name these: audio, "),
        ("my_engine:boastful", "accepts is 'tools'; it must be True or a collection"),
        ("my_engine:no_concurrency", "concurrency is 0; it must be a whole number from 1 to"),
        ("my_engine:true_concurrency", "concurrency is True; it must be"),
        ("my_engine:text_concurrency", "concurrency is '8'; it must be"),
        ("my_engine:sync_startup", "the engine's startup is not asynchronous; write async def startup()"),
        ("my_engine:sync_health", "the engine's health is not asynchronous; write async def health()"),
        ("my_engine:sync_aclose", "the engine's aclose is not asynchronous; write async def aclose()"),
        ("my_engine:named_startup", "the engine's startup takes arguments"),
        ("my_engine:text_health", "the engine's attribute health is of type str; write async def health()"),
        ("openai", "--upstream URL"),
    ],
)
@pytest.mark.usefixtures("user_directory")
def test_says_in_one_line_why_it_cannot_load(spec: str, hint: str) -> None:
    with pytest.raises(EngineLoadError) as raised:
        find_engine(spec, load({"openai_base_url": ""}))()
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_file_of_any_directory_can_be_named(user_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    engine = find_engine(f"{user_directory}/models/json.py:generate", load())()
    assert [event async for event in engine({}, EngineContext("r"))] == ["beside"]


def test_loads_the_built_in_ones() -> None:
    settings = load({"openai_base_url": "http://127.0.0.1:1/v1"})
    assert isinstance(find_engine("echo", settings)(), EchoEngine)
    assert isinstance(find_engine("openai", settings)(), OpenAIEngine)
