"""An engine's exception may carry megabytes: a prompt, a tensor, a traceback as text.

The answer, the record, every list of requests and the logs must stay small.
The same as edge/d_hugeerr.
Source: sidekiq/sidekiq#3570 and #1843, rq/rq#834, ray-project/ray#16336.
"""

from __future__ import annotations

from tests.known_faults.reports.kit import Site, chat
from tests.sse import post

ENGINE = """
async def generate(request, context):
    raise RuntimeError("x" * 3_000_000)
    yield
"""


async def test_a_huge_error_of_an_engine_stays_small_everywhere(site: Site, model: str) -> None:
    (site.directory / "loud.py").write_text(ENGINE)
    worker = await site.worker(model, "loud:generate")
    frontend_log = site.frontends[0].log
    before = frontend_log.stat().st_size
    answer = await site.ask(model)
    async with post(site.http, site.url, chat(model, stream=True)) as stream:
        await stream.read()
        streamed = stream.response.num_bytes_downloaded
    listing = await site.http.get(f"{site.url}/v1/requests?model={model}")
    assert answer.status_code == 500
    assert len(listing.json()["data"]) == 2
    assert max(len(answer.content), streamed) < 20_000
    assert len(listing.content) < 50_000
    assert worker.log.stat().st_size + frontend_log.stat().st_size - before < 50_000
