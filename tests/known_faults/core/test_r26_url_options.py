"""Options of redis-py may be given in the URL of Redis, behind the question mark, says the documentation.

One of them, `protocol=3`, changes the form of replies, which the scripts' callers do not expect. Expected: a URL with
any of these options works, or is refused with a message that names the option.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from tests.known_faults.core.replicas import call, frontend, quick_settings

_WORKING = ("health_check_interval=1", "client_name=x", "socket_timeout=1", "decode_responses=true")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as running:
        yield running


async def _one_is_inflight(url: str, namespace: str) -> bool:
    settings = quick_settings(url, namespace=namespace, queue_without_workers=True)
    async with frontend(settings) as tracker:
        flight = await tracker.admit(call("r1"))
        total = (await cluster.inflight(tracker.store)).total.inflight
        flight.connection.close()
        return total == 1


@pytest.mark.parametrize("option", _WORKING)
async def test_an_option_in_the_url_works(server: EmbeddedRedis, option: str) -> None:
    assert await _one_is_inflight(f"{server.url}?{option}", option.split("=")[0])


async def test_the_option_protocol_works_or_is_refused(server: EmbeddedRedis) -> None:
    try:
        fits = await _one_is_inflight(f"{server.url}?protocol=3", "protocol")
    except ValueError as refusal:
        fits = "protocol" in str(refusal)

    assert fits
