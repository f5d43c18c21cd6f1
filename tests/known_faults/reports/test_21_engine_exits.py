"""An engine, or a library under it, that calls `sys.exit` must fail its own request and nobody else's.

In 0.1, it ends its worker. The request has no token yet, so it is handed to the next worker, and the next: one request
ends a fleet, and the requests of others with it. Expected: `internal`, with a traceback in the worker's log.
Source: apache/airflow#36986, celery/billiard#452 and #457, dask/distributed#301.
"""

from __future__ import annotations

import asyncio

import httpx2

from tests.cluster import Process
from tests.known_faults.reports.kit import Site, chat
from tests.sse import error_of, post

ENGINE = """
import asyncio, sys

async def generate(request, context):
    text = request["messages"][-1]["content"]
    if text == "exit":
        sys.exit(3)
    if text == "interrupt":
        raise KeyboardInterrupt
    for number in range(20):
        yield f"{number} "
        await asyncio.sleep(0.05)
"""


async def poisoned(site: Site, model: str) -> Process:
    (site.directory / "poisoned.py").write_text(ENGINE)
    return await site.worker(model, "poisoned:generate")


async def answered(site: Site, model: str, text: str, worker: Process) -> httpx2.Response:
    """Return the answer to a call. Fail when the worker ends first."""
    call = asyncio.create_task(site.ask(model, text))
    end = asyncio.create_task(worker.process.wait())
    try:
        await asyncio.wait((call, end), return_when=asyncio.FIRST_COMPLETED)
        assert not end.done(), f"the worker has ended with {worker.process.returncode}"
        return await call
    finally:
        call.cancel()
        end.cancel()
        await asyncio.wait((call, end))


async def test_only_the_request_fails(site: Site, model: str) -> None:
    worker = await poisoned(site, model)
    async with post(site.http, site.url, chat(model, "normal", stream=True)) as neighbour:
        await neighbour.read_tokens(1)
        for text, traced in (("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt")):
            answer = await answered(site, model, text, worker)
            assert (answer.status_code, answer.json()["error"]["error_type"]) == (500, "internal")
            assert traced in worker.log.read_text()
        assert error_of(await neighbour.read()) is None
