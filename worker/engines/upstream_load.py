"""Ask an upstream how many requests wait in it, by its metrics in Prometheus's format."""

from __future__ import annotations

import asyncio
import math

import httpx2

from worker.engines.upstream import Upstream, keep_alive

_WAITING = {
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "llamacpp:requests_deferred",
    "tgi_queue_size",
}
_MAX_BYTES = 4 * 1024 * 1024
_TIMEOUT_SECS = 1.5
_ASK_AGAIN_SECS = 60.0  # an upstream that has no such metrics


class UpstreamLoad:
    """The number of waiting requests, from `/metrics` beside the upstream's `/v1`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ask_at = 0.0

    async def waiting(self, client: httpx2.AsyncClient) -> int | None:
        """Return how many requests wait in the upstream, None when it does not tell."""
        clock = asyncio.get_running_loop().time
        if clock() < self._ask_at:
            return None
        found = parse_waiting(await self._read(client))
        if found is None:
            self._ask_at = clock() + _ASK_AGAIN_SECS
        return found

    async def _read(self, client: httpx2.AsyncClient) -> str:
        """Return the metrics, '' when there are none."""
        url = self._upstream.url("/metrics", at_root=True)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(_TIMEOUT_SECS),
                client.stream("GET", url, headers=self._upstream.headers, extensions={"trace": keep_alive}) as response,
            ):
                if not response.is_success:
                    return ""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        return ""
        except (httpx2.HTTPError, TimeoutError):
            return ""
        return body.decode(errors="replace")


def parse_waiting(text: str) -> int | None:
    """Return the sum of the samples that tell how many requests wait, None when there is none."""
    found: list[float] = []
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _WAITING:
            try:
                found.append(float(line.rpartition("}")[2].removeprefix(name).split()[0]))
            except (ValueError, IndexError):
                continue
    found = [number for number in found if math.isfinite(number)]
    return int(sum(found)) if found else None
