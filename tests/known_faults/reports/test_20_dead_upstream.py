"""Two workers of one model, and the upstream of one of them is down.

Its worker fails in a millisecond, so it would take most of the work and fail it, although nothing was generated and
the other worker would serve it. A request that an upstream did not take goes to the other worker.
The same as edge/d_blackhole.
Source: vllm-project/production-stack#382 and #749, jina-ai/serve#4767, NVIDIA/nvcf#1643.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

from tests.known_faults.reports.kit import Site
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Call, Upstream, chunk
from tests.waiting import wait_until

FIRST, SECOND = "20: holds the only place of the good worker", "20: only the dead worker has a place"
LONG_ENOUGH_TO_FAIL_SECS = 1.0  # when it takes longer the test passes no more easily: it only proves less


async def test_a_request_that_an_upstream_did_not_take_goes_to_the_other_worker(
    site: Site, upstream: Upstream, model: str
) -> None:
    released = threading.Event()

    def held(call: Call) -> Iterator[bytes]:
        yield STREAM_HEAD + chunk({"content": "first"})
        released.wait(20)
        yield chunk({}, "stop") + DONE

    upstream.play(FIRST, held)
    upstream.play(SECOND, lambda call: [STREAM_HEAD, chunk({"content": "second"}, "stop"), DONE])
    with socket.socket() as holder:  # a port that refuses connections
        holder.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{holder.getsockname()[1]}/v1"
        await site.worker(model, "openai", openai_base_url=upstream.url, concurrency=1)
        first = asyncio.create_task(site.ask(model, FIRST))
        await wait_until(lambda: upstream.calls_of(FIRST), what="a request at the good worker")
        await site.worker(model, "openai", openai_base_url=dead)
        second = asyncio.create_task(site.ask(model, SECOND))
        await asyncio.wait({second}, timeout=LONG_ENOUGH_TO_FAIL_SECS)
        released.set()
        answers = await asyncio.gather(first, second)
    assert [answer.status_code for answer in answers] == [200, 200]
