"""A call for a model that nobody serves makes its frontend ask Redis for the whole roster, before it answers 404.

One caller can keep Redis busy that way, the more so the more replicas there are. Expected: such a call costs Redis
little, however many replicas there are.
"""

from __future__ import annotations

from pathlib import Path

from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.connect import open_store
from lifecycle.types import Role
from tests.cluster import running
from tests.joining import join
from tests.known_faults.core.replicas import quick_settings
from tests.servers import info

_REPLICAS = 200
_CALLS = 50
_BYTES_PER_CALL = 10_000  # a roster of so many replicas has more than 30,000
_ABOUT = {"host": "host.test", "pid": 1, "started_at": 1.0, "version": "1", "state": "ready", "models": ["m"]}


def _bytes_out(server: EmbeddedRedis) -> int:
    return int(info(server, "stats")["total_net_output_bytes"])


async def test_a_call_for_an_unknown_model_costs_redis_little(tmp_path: Path) -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url, lease_secs=600.0, heartbeat_secs=60.0, sweep_secs=60.0)
        async with open_store(settings) as store:
            for number in range(_REPLICAS):
                await join(store, f"worker-{number:012x}", Role.WORKER, _ABOUT, ["m"])
        async with running(settings, tmp_path, workers=0) as cluster:
            url = f"{cluster.frontends[0].url}/v1/chat/completions"
            body = {"model": "nobody-serves-this", "messages": [{"role": "user", "content": "hi"}]}
            before = _bytes_out(server)

            answers = [await cluster.http.post(url, json=body) for _ in range(_CALLS)]

            assert {answer.status_code for answer in answers} == {404}
            assert _bytes_out(server) - before <= _CALLS * _BYTES_PER_CALL
