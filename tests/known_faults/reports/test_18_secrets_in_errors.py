"""Errors that a client gets must not contain the operator's upstream key, its password, or internal addresses.

Clients get a fixed sentence, and the log has the details. White space around a key is no part of it.
Source: openclaw/openclaw#97817, nyroway/nyro#68, vavallee/bindery#1144, Wei-Shaw/sub2api#5650, unkeyed/unkey#5151;
a key with a line end behind it: depictio/depictio#104, langchain-ai/langchain#21261.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from tests.known_faults.reports.kit import Site, chat
from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk
from tests.waiting import wait_until

SECRET = "sk-SECRET"
TEXT = "18: fine"


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port of this machine that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


async def told(site: Site, model: str, upstream_url: str, key: str = "") -> str:
    """Return all that a client of such a worker sees, or the last line of the worker's log when it refuses to start."""
    argv = ("worker", "--model", model, "--engine", "openai", "--upstream", upstream_url)
    process = await site.launch(*argv, env={"LIFECYCLE_OPENAI_API_KEY": key})
    if not await site.serves_or_ends(model, process):
        return process.log.read_text().splitlines()[-1]
    unary, stream = await site.ask(model, TEXT), await site.ask(model, TEXT, stream=True)
    records = await site.http.get(f"{site.url}/v1/requests?model={model}")
    return unary.text + stream.text + records.text


@pytest.mark.parametrize("end", [pytest.param("\n", id="line feed"), pytest.param("\r", id="carriage return")])
async def test_a_key_with_a_line_end_works_and_is_not_shown(
    site: Site, upstream: Upstream, model: str, end: str
) -> None:
    upstream.play(TEXT, lambda call: [STREAM_HEAD, chunk({"content": "fine"}, "stop"), DONE])
    shown = await told(site, model, upstream.url, SECRET + end)
    assert "SECRET" not in shown
    assert '"content":"fine"' in shown


async def test_the_password_in_the_upstreams_url_is_not_shown(site: Site, model: str, dead_port: int) -> None:
    assert "hunter2" not in await told(site, model, f"http://bob:hunter2@127.0.0.1:{dead_port}/v1")


async def test_the_upstreams_address_is_not_shown(site: Site, model: str, dead_port: int) -> None:
    assert f":{dead_port}" not in await told(site, model, f"http://127.0.0.1:{dead_port}/v1")


async def test_the_address_of_redis_is_not_shown(site: Site) -> None:
    with EmbeddedRedis(port=0) as server:
        frontend = await site.another_frontend(redis_url=server.url, redis_timeout_secs=0.5)
        server.kill()

        async def away() -> bool:
            return (await site.http.get(frontend.url + "/ready")).status_code == 503

        await wait_until(away, what="a frontend that knows that Redis is away")
        probe = await site.http.get(frontend.url + "/ready")
        refused = await site.http.post(frontend.url + "/v1/chat/completions", json=chat("echo"))
        await frontend.terminate()
    assert (probe.status_code, refused.status_code) == (503, 503)
    assert [answer.text for answer in (probe, refused) if f":{server.port}" in answer.text] == []
