"""An upstream whose host vanishes sends neither FIN nor RST, and yet its answer ends within a bound."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.cluster import ROOT
from tests.network_namespaces import CLIENT_ADDRESS, cable, inside, needs_namespaces, unplug

PORT = 8000
BOUND_SECS = 20.0

SERVER = """
import socket
with socket.create_server(("%s", %d)) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    connection.recv(65536)
    head = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n"
    connection.sendall(head + b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\\n\\n')
    connection.recv(65536)
"""

CALLER = """
import asyncio
from lifecycle.errors import LifecycleError
from lifecycle.execution.context import EngineContext
from worker.engines import upstream
from worker.engines.openai import OpenAIEngine

async def call():
    engine = OpenAIEngine("http://%s:%d/v1")
    try:
        async for event in engine({"model": "m", "messages": []}, EngineContext("r")):
            print(event, flush=True)
    except LifecycleError as failure:
        print(type(failure).__name__, failure, flush=True)
    await engine.aclose()

upstream.VANISHED_AFTER_SECS = 2.0
asyncio.run(call())
"""


@needs_namespaces
async def test_the_answer_of_a_vanished_upstream_ends() -> None:
    with cable() as (near, far):
        serving = await _python(far, SERVER % (CLIENT_ADDRESS, PORT))
        calling: asyncio.subprocess.Process | None = None
        try:
            async with asyncio.timeout(BOUND_SECS):
                assert await _line(serving) == "listening"
                calling = await _python(near, CALLER % (CLIENT_ADDRESS, PORT))
                assert await _line(calling) == "first"
                unplug(far)
                said = await _line(calling)
            assert said.startswith("EngineError"), said
            assert CLIENT_ADDRESS not in said
        finally:
            for process in filter(None, (serving, calling)):
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def _python(holder: int, program: str) -> asyncio.subprocess.Process:
    """Run a program in a namespace."""
    return await asyncio.create_subprocess_exec(
        *inside(holder, sys.executable, "-c", program),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()
