"""Measure how two owners with the weights 4:1 share a model's tokens: `python -m benchmarks.fairness [--requests N]`.

Two frontends, one worker, and owners that both always have requests waiting, whose calls come through the frontends in
different ways. Shares are counted in tokens, as the owners are charged: those of the prompt and of the answer, of the
requests that started while both waited. One row kills a frontend with SIGKILL in the middle; the requests that it held
count too, as far as they ran. The rows are those of https://github.com/ai-dynamo/dynamo/issues/15187, where the calls
of the owners through different frontends turn 4:1 into 163:162.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx2

from lifecycle import AsyncClient, RequestRecord
from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.local.embedded_redis import open_redis
from lifecycle.settings import load
from tests.cluster import Cluster, Process, running

WEIGHTS = {"premium": 4.0, "regular": 1.0}
_CALLERS = 48  # of each owner, which call one after the other
_SLOTS = 8
_WORDS = 20
_TOKENS_PER_SEC = 400.0  # of each request
_SETTINGS = {
    "heartbeat_secs": 0.5,
    "lease_secs": 2.0,
    "sweep_secs": 0.5,
    "concurrency": _SLOTS,
    "echo_tokens_per_sec": _TOKENS_PER_SEC,
}


class Row(NamedTuple):
    """Say through which frontends each owner's callers call, one after the other; `kills` the first of them."""

    name: str
    premium: Sequence[int]
    regular: Sequence[int]
    kills: bool = False


ROWS = (
    Row("one frontend", (0,), (0,)),
    Row("two frontends, balanced", (0, 1), (0, 1)),
    Row("two frontends, skewed 7:1 and 1:7", (0, 0, 0, 0, 0, 0, 0, 1), (1, 1, 1, 1, 1, 1, 1, 0)),
    Row("all premium calls through A, all regular ones through B", (0,), (1,)),
    Row("all premium calls through B, all regular ones through A", (1,), (0,)),
    Row("all premium calls through A, which is killed with `kill -9` in the middle", (0,), (1,), kills=True),
)


class Shares(NamedTuple):
    """The tokens and requests of each owner."""

    tokens: Counter[str]
    requests: Counter[str]

    @property
    def ratio(self) -> float:
        return self.tokens["premium"] / max(1, self.tokens["regular"])


async def call_forever(cluster: Cluster, frontends: list[Process], at: Sequence[int], caller: int, key: str) -> None:
    """Call one after the other; a frontend that is gone is replaced by the next."""
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": " ".join(["word"] * _WORDS)}],
        "max_tokens": _WORDS,
    }
    place = at[caller % len(at)]
    while True:
        try:
            url = frontends[place % len(frontends)].url
            headers = {"Authorization": f"Bearer {key}"}
            answer = await cluster.http.post(url + "/v1/chat/completions", json=body, headers=headers)
            if answer.status_code >= 500:
                await asyncio.sleep(0.05)
        except httpx2.TransportError:
            place += 1


async def counted(client: AsyncClient, owner: str) -> list[RequestRecord]:
    """Return the requests of an owner that have started."""
    return [record for record in await client.requests(owner=owner) if record.started_at is not None]


async def started(client: AsyncClient) -> int:
    return sum([len(await counted(client, owner)) for owner in WEIGHTS])


def shares_of(records: dict[str, list[RequestRecord]], wanted: int) -> Shares:
    """Return the shares of the `wanted` requests that started after a first tenth, in which the queue fills."""
    every = sorted((r for found in records.values() for r in found), key=lambda r: r.started_at or 0.0)
    skipped = wanted // 10
    window = every[skipped : skipped + wanted]
    tokens: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for record in window:
        usage = record.usage or {}
        tokens[record.owner or ""] += usage.get("prompt_tokens", 0) + record.output_tokens
        requests[record.owner or ""] += 1
    return Shares(tokens, requests)


async def measure(row: Row, wanted: int, url: str, keys: dict[str, str], lines: str) -> Shares:
    """Run one row in a namespace of its own."""
    settings = load({"redis_url": url, "namespace": f"fair{ROWS.index(row)}", "api_keys": lines, **_SETTINGS})
    operator = {"Authorization": f"Bearer {keys['ops']}"}
    with tempfile.TemporaryDirectory() as directory:
        async with running(settings, Path(directory), frontends=2, workers=1, headers=operator) as cluster:
            cluster.http.timeout = httpx2.Timeout(60)
            frontends = list(cluster.frontends)
            async with AsyncClient(redis_url=url, namespace=settings.namespace) as client:
                callers = [
                    asyncio.create_task(call_forever(cluster, frontends, at, number, keys[owner]))
                    for number in range(_CALLERS)
                    for owner, at in (("premium", row.premium), ("regular", row.regular))
                ]
                try:
                    is_killed = not row.kills
                    total = wanted + wanted // 10
                    while (now := await started(client)) < total + _SLOTS:
                        if not is_killed and now > total // 2:
                            cluster.frontends.remove(frontends[0])
                            await frontends[0].kill()
                            is_killed = True
                        await asyncio.sleep(0.25)
                    records = {owner: await counted(client, owner) for owner in WEIGHTS}
                finally:
                    for caller in callers:
                        caller.cancel()
                    with suppress(asyncio.CancelledError):
                        await asyncio.gather(*callers, return_exceptions=True)
                running_now = [r.id for found in records.values() for r in found if not r.status.terminal]
                ended = {rid: await client.get(rid) for rid in running_now}
    return shares_of({owner: [ended.get(r.id, r) for r in found] for owner, found in records.items()}, wanted)


async def main(wanted: int) -> bool:
    """Print the table, and return whether each row is within two percent."""
    made = {name: new_key(name, KeyRole.CLIENT, weight=weight) for name, weight in WEIGHTS.items()}
    made["ops"] = new_key("ops", KeyRole.OPERATOR)
    keys, lines = {name: key for name, (key, _) in made.items()}, ",".join(kept.line for _, kept in made.values())
    print("| calls | tokens, premium | tokens, regular | requests | ratio |\n|---|---:|---:|---:|---:|")
    is_fair = True
    with open_redis(None) as url:
        for row in ROWS:
            shares = await measure(row, wanted, url, keys, lines)
            is_fair &= 3.92 <= shares.ratio <= 4.08
            print(
                f"| {row.name} | {shares.tokens['premium']:,} | {shares.tokens['regular']:,} "
                f"| {shares.requests['premium']}:{shares.requests['regular']} | {shares.ratio:.3f} |",
                flush=True,
            )
    return is_fair


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="how many requests each row counts")
    raise SystemExit(0 if asyncio.run(main(parser.parse_args().requests)) else 1)
