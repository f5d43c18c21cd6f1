"""Loading engines, the echo engine, and the parts of the openai engine that need no socket."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.execution.context import EngineContext
from lifecycle.execution.engine import Engine, accepted_parameters
from lifecycle.execution.threaded import as_async
from lifecycle.settings import SettingsError, load
from lifecycle.types import Event
from worker.engines import EngineLoadError, close_engine, load_engine
from worker.engines.echo import EchoEngine
from worker.engines.openai import OpenAIEngine
from worker.engines.upstream import Upstream
from worker.server import serve

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
BOUND_SECS = 2.0


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


async def tokens(engine: Engine, request: dict[str, Any], context: EngineContext | None = None) -> list[Event]:
    async with asyncio.timeout(BOUND_SECS):
        return [token async for token in engine(request, context or EngineContext("r"))]


# loading


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
    engine = load_engine(spec, load())
    assert sys.modules["worker"] is product
    assert await tokens(as_async(engine), {}) == [said]
    await close_engine(engine)


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
        load_engine(spec, load({"openai_base_url": ""}))
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_a_file_of_any_directory_can_be_named(user_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    engine = load_engine(f"{user_directory}/models/json.py:generate", load())
    assert await tokens(engine, {}) == ["beside"]


def test_loads_the_built_in_ones() -> None:
    settings = load({"openai_base_url": "http://127.0.0.1:1/v1"})
    assert isinstance(load_engine("echo", settings), EchoEngine)
    assert isinstance(load_engine("openai", settings), OpenAIEngine)


def test_an_engine_declares_what_it_takes() -> None:
    class Declares:
        accepts: object = ()

        async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
            yield "x"

    engine = Declares()
    assert accepted_parameters(engine) == []
    engine.accepts = {"tools", "n"}
    assert accepted_parameters(engine) == ["n", "tools"]
    engine.accepts = True
    assert accepted_parameters(engine) == ["*"]
    assert accepted_parameters(EchoEngine(0)) == []
    assert accepted_parameters(OpenAIEngine("http://127.0.0.1:1")) == ["*"]


@pytest.mark.parametrize(
    "url", ["localhost:8001", "ftp://host/v1", "http://", "http://host:port", "/v1", "http://host/v1#part"]
)
def test_an_upstream_must_be_a_url(url: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_BASE_URL"):
        OpenAIEngine(url)


@pytest.mark.parametrize("url", ["http://bob:hunter2@host:port/v1", "bob:hunter2@host", "ftp://bob:hun/ter2@host"])
def test_a_refused_url_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(EngineLoadError) as raised:
        OpenAIEngine(url)
    assert "ter2" not in str(raised.value)


@pytest.mark.parametrize("key", ["“sk-secret”", "sk-\nsecret", "sk-\x00secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(EngineLoadError, match="LIFECYCLE_OPENAI_API_KEY") as raised:
        OpenAIEngine("http://127.0.0.1:1", key)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://bob:hunter2@127.0.0.1:1/"),
        ("ALL_PROXY", "http://bob:hunter2@[::1/"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
    ],
)
def test_an_environment_that_fails_every_call_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EngineLoadError, match=name) as raised:
        OpenAIEngine("http://127.0.0.1:1")
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("base_url", "message", "shown"),
    [
        ("http://10.0.0.7:8000/v1", "no route to http://10.0.0.7:8000/v1/x", "no route to [upstream]/v1/x"),
        ("http://10.0.0.7:8000/v1", "10.0.0.7 is away, 110.0.0.7 is not", "[upstream] is away, 110.0.0.7 is not"),
        ("http://bob:hunter2@vllm/v1", "bob:hunter2 at http://bob:hunter2@vllm/", "[redacted] at [upstream]/"),
        ("http://vllm:8000", "vllm: no such model at VLLM:8000", "vllm: no such model at [upstream]"),
        ("http://[::1]:8000/", "connect [::1]:8000 failed", "connect [upstream] failed"),
        ("https://api.example.com/v1", "Incorrect key sk-secret", "Incorrect key [redacted]"),
    ],
)
def test_a_message_names_neither_address_nor_credentials(base_url: str, message: str, shown: str) -> None:
    assert Upstream(base_url, " sk-secret\n").scrub(message) == shown


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host", "http://host/v1/x"),
        ("http://host/", "http://host/v1/x"),
        ("http://host:81/api/v2/", "http://host:81/api/v2/x"),
        ("http://bob:pw@host/v1?api-version=1&b=2", "http://host/v1/x?api-version=1&b=2"),
    ],
)
def test_the_urls_of_an_upstream(base_url: str, url: str) -> None:
    assert Upstream(base_url).url("/x") == url


@pytest.mark.parametrize("models", [[], [""], ["m", " "]])
async def test_a_worker_needs_the_name_of_a_model(models: list[str]) -> None:
    with pytest.raises(SettingsError, match="--model"):
        await serve(load(), models, "echo")


# a synchronous engine


def threaded(function: Any) -> Any:
    function.run_in_thread = True
    return as_async(function)


async def test_a_synchronous_engine_leaves_the_loop_alone() -> None:
    ticks = threading.Semaphore(0)

    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        for number in range(3):
            assert ticks.acquire(timeout=BOUND_SECS)
            context.input_tokens = number
            yield str(number)

    context = EngineContext("r")
    answer = asyncio.create_task(tokens(engine, {}, context))
    for _ in range(3):
        await asyncio.sleep(0)
        ticks.release()  # by the loop, which therefore runs
    assert await answer == ["0", "1", "2"]
    assert context.input_tokens == 2


@pytest.mark.parametrize("failure", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_a_synchronous_engine_passes_its_errors_on(failure: BaseException) -> None:
    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        yield "x"
        raise failure

    answer = engine({}, EngineContext("r"))
    assert await anext(answer) == "x"
    with pytest.raises(type(failure)):
        await anext(answer)


async def test_a_cancelled_synchronous_engine_ends_at_its_next_yield() -> None:
    release, closed = threading.Event(), threading.Event()

    @threaded
    def engine(request: dict[str, Any], context: EngineContext) -> Iterator[str]:
        try:
            yield "x"
            release.wait(BOUND_SECS)
            yield "never"
        finally:
            closed.set()

    answer = engine({}, EngineContext("r"))
    assert await anext(answer) == "x"
    waiting = asyncio.ensure_future(anext(answer))
    await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait((waiting,), timeout=0.05)
    assert not done  # the thread is busy, and so is the attempt
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, BOUND_SECS)
    assert closed.is_set()


# echo


# interruption


# what the upstream sends


async def test_closing_an_engine_that_holds_nothing_is_fine() -> None:
    async def generate(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        yield "x"

    await close_engine(generate)
    await close_engine(OpenAIEngine("http://127.0.0.1:1"))
