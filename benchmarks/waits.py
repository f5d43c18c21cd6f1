"""Compare told waits with real ones: `python -m benchmarks.waits [--requests N]`.

Requests of several owners, of different lengths and weights, are queued before a worker with a few slots. Each one's
`estimated_wait_secs` is asked for over HTTP several times, and compared with the time from then to its start.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import httpx2

from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.local.embedded_redis import open_redis
from lifecycle.settings import load
from tests.cluster import Cluster, running

OWNERS = {"a": 1.0, "b": 2.0, "c": 4.0}
EDGES = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
_SLOTS = 4
_SHORTEST_SECS = 0.5  # of waits that are compared; shorter ones depend on when a single slot comes free
_ROUNDS = 6


async def call(cluster: Cluster, http: httpx2.AsyncClient, rid: str, key: str, words: int) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "w " * words}], "max_tokens": words}
    headers = {"Authorization": f"Bearer {key}", "X-Request-Id": rid}
    answer = await http.post(cluster.frontends[0].url + "/v1/chat/completions", json=body, headers=headers)
    answer.raise_for_status()


async def measure(cluster: Cluster, http: httpx2.AsyncClient, keys: dict[str, str], requests: int) -> list[float]:
    """Return the ratio of each estimate to the wait that followed it."""
    chance = random.Random(7)
    rids = {f"r{number}": keys[chance.choice(list(OWNERS))] for number in range(requests)}
    calls = [asyncio.create_task(call(cluster, http, rid, key, chance.randint(10, 60))) for rid, key in rids.items()]
    told: list[tuple[str, float, float]] = []  # id, when asked, estimate
    for _ in range(_ROUNDS):
        await asyncio.sleep(2.0)
        for rid in rids:
            answer = await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{rid}")
            record = answer.json()
            if record.get("estimated_wait_secs") is not None:
                now = (await cluster.get("/v1/inflight"))["as_of"]
                told.append((rid, now, record["estimated_wait_secs"]))
    await asyncio.gather(*calls)
    started = {rid: (await cluster.record(rid))["started_at"] for rid in rids}
    waits = [(estimate, started[rid] - at) for rid, at, estimate in told]
    return [estimate / wait for estimate, wait in waits if wait >= _SHORTEST_SECS]


def histogram(ratios: list[float]) -> Counter[str]:
    """Count the ratios between the edges."""
    names = [f"below {EDGES[0]}", *(f"{a} to {b}" for a, b in pairwise(EDGES)), f"above {EDGES[-1]}"]
    counts = Counter(dict.fromkeys(names, 0))
    for ratio in ratios:
        counts[names[sum(ratio >= edge for edge in EDGES)]] += 1
    return counts


async def main(requests: int) -> bool:
    """Print the histogram, and return whether nine in ten estimates are within a factor of two."""
    made = {name: new_key(name, KeyRole.CLIENT, weight=weight) for name, weight in OWNERS.items()}
    made["ops"] = new_key("ops", KeyRole.OPERATOR)
    keys, lines = {name: key for name, (key, _) in made.items()}, ",".join(kept.line for _, kept in made.values())
    with open_redis(None) as url, tempfile.TemporaryDirectory() as directory:
        settings = load({"redis_url": url, "api_keys": lines, "concurrency": _SLOTS, "echo_tokens_per_sec": 50.0})
        headers = {"Authorization": f"Bearer {keys['ops']}"}
        async with running(settings, Path(directory), headers=headers) as cluster:
            limits = httpx2.Limits(max_connections=None)
            async with httpx2.AsyncClient(timeout=300, limits=limits, trust_env=False) as http:
                ratios = await measure(cluster, http, keys, requests)
    print("| estimate / wait | estimates |\n|---|---:|")
    for name, number in histogram(ratios).items():
        print(f"| {name} | {number} |")
    within = sum(0.5 <= ratio <= 2.0 for ratio in ratios) / max(1, len(ratios))
    print(f"\n{within:.1%} of {len(ratios)} estimates are within a factor of two.")
    return within >= 0.9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=150)
    raise SystemExit(0 if asyncio.run(main(parser.parse_args().requests)) else 1)
