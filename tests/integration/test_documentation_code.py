"""Test the code blocks of README.md and docs/: each shell and Python block is executed, or says why it is not.

A comment on the line before a block decides:

- `<!-- run -->`: the block is executed here, against two frontends and a worker;
- `<!-- run in the background -->`: the block starts a worker, which runs until the end of its page;
- `<!-- not run: reason -->`: the block is not executed.

A block in the background may also serve an application on one of the ports 9000 to 9003. They are replaced by free
ports, and the block has started when its port is open.

The blocks of one page are executed in their order, in one folder. A Python block whose first line is `# name.py` is
saved under that name. `localhost:8000` and `localhost:8001` are replaced by the addresses of the two frontends.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings, as_environment
from tests.cluster import ROOT, Cluster, running
from tests.conftest import inspect_and_clear
from tests.waiting import wait_until

LANGUAGES = ("bash", "sh", "python")
BLOCK_SECS = 60.0  # a limit for a busy machine; a block takes about a second

# Blocks without a comment that other tests execute: the page, a text that the block contains, and the test.
EXECUTED_ELSEWHERE = {
    ("README.md", "lifecycle up"): "tests/integration/test_cli.py",
    ("README.md", "-m pytest"): ".ci/run",
    ("docs/webhooks.md", "from standardwebhooks"): "tests/integration/test_webhooks.py",
    ("docs/security.md", "lifecycle keys new --name acme"): "tests/unit/test_access.py",
    ("docs/queue.md", "lifecycle keys new --name acme"): "tests/unit/test_access.py",
}

_BLOCK = re.compile(
    r"^( *)(?:<!-- ((?:(?!-->).)+) -->\n *)?```(\w+)\n(.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_APP_PORT = re.compile(r"\b900[0-3]\b")
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Block:
    """One code block of a page; `comment` is the text of the comment on the line before, or empty."""

    page: str
    line: int
    comment: str
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.comment == "run" or self.in_background

    @property
    def in_background(self) -> bool:
        return self.comment == "run in the background"

    @property
    def elsewhere(self) -> str | None:
        """Return the test that executes the block elsewhere."""
        found = (test for (page, text), test in EXECUTED_ELSEWHERE.items() if page == self.page and text in self.code)
        return next(found, None)


def blocks_of(page: str, text: str) -> list[Block]:
    """Return the shell and Python blocks of a page."""
    found = []
    for match in _BLOCK.finditer(text):
        indent, comment, language, code = match.groups()
        if language in LANGUAGES:
            line = text.count("\n", 0, match.start()) + 1
            code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
            found.append(Block(page, line, comment or "", language, code))
    return found


def pages() -> dict[str, list[Block]]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(path.relative_to(ROOT)): blocks_of(str(path.relative_to(ROOT)), path.read_text()) for path in paths}


PAGES = pages()
EXECUTED = [page for page, blocks in PAGES.items() if any(block.runs for block in blocks)]


def test_every_block_is_executed_or_says_why_not() -> None:
    blocks = [block for page in PAGES.values() for block in page]
    assert blocks
    unmarked = [
        block.place
        for block in blocks
        if not (block.runs or block.elsewhere or re.match(r"not run: \w", block.comment, re.DOTALL))
    ]
    assert unmarked == []


def test_the_tests_that_execute_blocks_elsewhere_exist() -> None:
    assert [test for test in EXECUTED_ELSEWHERE.values() if not (ROOT / test).exists()] == []


def test_blocks_are_found_with_their_comments() -> None:
    text = (
        "<!-- run -->\n```python\n# a.py\nprint(1)\n```\n\n<!-- not run: why -->\n\n```bash\nls\n```\n"
        "- item\n\n  <!-- not run: it is\n  long -->\n  ```sh\n  ls\n  ```\n```json\n{}\n```\n"
    )
    assert [(b.line, b.comment, b.language, b.code) for b in blocks_of("page.md", text)] == [
        (1, "run", "python", "# a.py\nprint(1)\n"),
        (9, "", "bash", "ls\n"),
        (14, "not run: it is\n  long", "sh", "ls\n"),
    ]


@pytest.fixture(scope="module")
def shared(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Provide the processes; a test takes `cluster`, whose HTTP client belongs to the test's event loop."""
    settings = Settings(
        redis_url=redis_url,
        namespace=f"documentation-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        echo_tokens_per_sec=200.0,
    )
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        directory = tmp_path_factory.mktemp("documentation")
        cluster = runner.run(stack.enter_async_context(running(settings, directory, frontends=2)))
        try:
            yield cluster
        finally:
            runner.run(stack.aclose())
        found = runner.run(inspect_and_clear(redis_url, settings.namespace, False))
    assert not found, "left in Redis:\n  " + "\n  ".join(found)


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        yield Cluster(shared.settings, shared.directory, http, [*shared.frontends], [*shared.workers])


@pytest.mark.parametrize("page", EXECUTED)
async def test_the_blocks_of_a_page_work(page: str, cluster: Cluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for block in PAGES[page]:
            if block.in_background:
                await stack.enter_async_context(in_background(block, cluster, tmp_path))
            elif block.runs:
                await execute(block, cluster, tmp_path)


async def execute(block: Block, cluster: Cluster, folder: Path) -> None:
    """Execute a block. It must end with exit code 0."""
    process = await start(block, cluster, folder)
    try:
        async with asyncio.timeout(BLOCK_SECS):
            output, _ = await process.communicate()
    finally:
        await end(process, signal.SIGKILL)
    assert process.returncode == 0, f"{block.place} ended with {process.returncode}:\n{output.decode()}"


@asynccontextmanager
async def in_background(block: Block, cluster: Cluster, folder: Path) -> AsyncIterator[None]:
    """Run a block that starts a worker. The worker has joined when the context is entered."""
    before = len((await cluster.get("/v1/replicas"))["data"])

    async def joined() -> bool:
        assert process.returncode is None, f"{block.place} ended with {process.returncode}"
        return len((await cluster.get("/v1/replicas"))["data"]) > before

    async def listens() -> bool:
        for documented in _APP_PORT.findall(block.code):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", app_port(documented))
            except OSError:
                return False
            writer.close()
        return True

    process = await start(block, cluster, folder)
    try:
        await wait_until(joined, timeout=BLOCK_SECS)
        await wait_until(listens, timeout=BLOCK_SECS)
        yield
    finally:
        await end(process, signal.SIGTERM)


@cache
def app_port(documented: str) -> int:
    """Return the port that stands for a documented one."""
    return free_port()


async def start(block: Block, cluster: Cluster, folder: Path) -> asyncio.subprocess.Process:
    code = block.code
    for documented, frontend in zip(("localhost:8000", "localhost:8001"), cluster.frontends, strict=True):
        code = code.replace(documented, frontend.url.removeprefix("http://"))
    code = _APP_PORT.sub(lambda match: str(app_port(match[0])), code)
    if block.language == "python":
        named = _FILE.match(code)
        path = folder / (named[1] if named else "block.py")
        path.write_text(code)
        command = [sys.executable, str(path)]
    else:
        command = ["bash", "-eu", "-o", "pipefail", "-c", code]
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment(cluster.settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if not block.in_background else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def end(process: asyncio.subprocess.Process, sig: signal.Signals) -> None:
    """Send a signal to the process group of a block if it still runs, and wait for its end."""
    if process.returncode is None:
        os.killpg(process.pid, sig)
    async with asyncio.timeout(BLOCK_SECS):
        await process.wait()


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a block: the cluster's settings, and the commands of this Python environment."""
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return as_environment(settings) | {
        "PATH": commands,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # loading the plugins of this test suite takes seconds
    }
