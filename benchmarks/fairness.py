"""Measure how two owners with the weights 4:1 share a model's tokens: `python -m benchmarks.fairness`.

Two frontends, one worker, and owners that both always have requests waiting, whose calls come through the frontends in
different ways. Shares are counted in tokens, as the owners are charged: those of the prompt and of the answer, of the
requests that started while both waited. One row kills a frontend with SIGKILL in the middle. The requests that ran for
it count too: with the estimate of the prompt, as no engine has reported it, and the tokens that were produced. The rows
are those of https://github.com/ai-dynamo/dynamo/issues/15187, where the calls of the owners through different frontends
turn 4:1 into 163:162.

With `--shards` an owner's requests are spread over several queues, each of which is fair by itself. What an owner gets
is then exact only while it has requests waiting in each of them, so it depends on `--callers`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx2
import orjson

from lifecycle import AsyncClient, RequestRecord
from lifecycle.fastapi.api_key import new_key
from lifecycle.fastapi.caller import KeyRole
from lifecycle.formats.token_estimate import estimate_tokens
from lifecycle.local.embedded_redis import open_redis
from lifecycle.settings import load
from lifecycle.types import Status
from tests.cluster import Process, running
from tests.waiting import wait_until

WEIGHTS = {"premium": 4.0, "regular": 1.0}
_SLOTS = 8
_LONGEST_SECS = 300.0
_WORDS = 40
_TOKENS_PER_SEC = 50.0  # of each request
_SETTINGS = {
    "heartbeat_secs": 0.5,
    "lease_secs": 4.0,  # a shorter one may end while the machine is busy
    "sweep_secs": 0.5,
    "concurrency": _SLOTS,
    "echo_tokens_per_sec": _TOKENS_PER_SEC,
}
_BODY = orjson.dumps(
    {
        "model": "echo",
        "messages": [{"role": "user", "content": " ".join(["word"] * _WORDS)}],
        "max_tokens": _WORDS,
    }
)
_PROMPT_TOKENS = estimate_tokens("chat_completions", {}, len(_BODY)).prompt  # of a request that reports none


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


class Size(NamedTuple):
    """Say how much is measured: the requests of a row, and the callers of each owner, which call one by one."""

    requests: int = 500
    callers: int = 64
    shards: int = 1


class Shares(NamedTuple):
    """Count the tokens and requests of each owner, and at how many starts an owner had nothing else waiting."""

    tokens: Counter[str]
    requests: Counter[str]
    starved: int
    failed: int  # how many of the requests did not complete

    @property
    def ratio(self) -> float:
        return self.tokens["premium"] / max(1, self.tokens["regular"])


class Callers:
    """Call for both owners until cancelled, each of many callers one call after the other."""

    def __init__(self, http: httpx2.AsyncClient, frontends: Sequence[Process], keys: Mapping[str, str]) -> None:
        self.answered = 0
        self._http = http
        self._frontends = frontends
        self._keys = keys

    async def run(self, row: Row, callers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self._call_forever("premium", row.premium[number % len(row.premium)]))
                group.create_task(self._call_forever("regular", row.regular[number % len(row.regular)]))

    async def _call_forever(self, owner: str, place: int) -> None:
        """Call through one frontend, and once that is gone through the next."""
        headers = {"Authorization": f"Bearer {self._keys[owner]}", "Content-Type": "application/json"}
        while True:
            url = self._frontends[place % len(self._frontends)].url
            try:
                answer = await self._http.post(url + "/v1/chat/completions", content=_BODY, headers=headers)
            except httpx2.TransportError:
                place += 1
                continue
            self.answered += answer.status_code == 200
            if answer.status_code != 200:
                await asyncio.sleep(0.05)


def shares_of(records: Sequence[RequestRecord], wanted: int) -> Shares:
    """Return the shares of the `wanted` requests that started after a first tenth, in which the queue fills."""
    every = sorted((r for r in records if r.started_at is not None), key=lambda r: r.started_at or 0.0)
    skipped = wanted // 10
    window = every[skipped : skipped + wanted]
    tokens: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for record in window:
        usage = record.usage or {}
        tokens[record.owner or ""] += usage.get("prompt_tokens", _PROMPT_TOKENS) + record.output_tokens
        requests[record.owner or ""] += 1
    starved = sum(len(_waiting(every, record.started_at or 0.0)) < len(WEIGHTS) for record in window)
    return Shares(tokens, requests, starved, sum(record.status is not Status.COMPLETED for record in window))


def _waiting(records: Sequence[RequestRecord], at: float) -> set[str]:
    """Return the owners that have requests waiting at this time."""
    return {r.owner or "" for r in records if r.created_at <= at < (r.started_at or 0.0)}


async def measure(row: Row, size: Size, url: str, keys: dict[str, str], lines: str) -> Shares:
    """Run one row in a namespace of its own."""
    wanted, namespace = size.requests, f"fair{ROWS.index(row)}"
    given = {"redis_url": url, "namespace": namespace, "api_keys": lines, "shards": size.shards, **_SETTINGS}
    settings = load(given)
    operator = {"Authorization": f"Bearer {keys['ops']}"}
    with tempfile.TemporaryDirectory() as directory:
        async with (
            running(settings, Path(directory), frontends=2, workers=1, headers=operator) as cluster,
            AsyncClient(redis_url=url, namespace=namespace, shards=size.shards) as client,
            httpx2.AsyncClient(timeout=120, limits=httpx2.Limits(max_connections=None), trust_env=False) as http,
        ):
            callers = Callers(http, list(cluster.frontends), keys)
            calling = asyncio.create_task(callers.run(row, size.callers))
            if row.kills:
                await wait_until(lambda: callers.answered > wanted // 2, timeout=_LONGEST_SECS)
                await cluster.frontends.pop(0).kill()
            await wait_until(lambda: callers.answered > wanted * 1.2, timeout=_LONGEST_SECS)
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
            await wait_until(lambda: _idle(client), timeout=_LONGEST_SECS)
            records = [record for owner in WEIGHTS for record in await client.requests(owner=owner)]
    return shares_of(records, wanted)


async def _idle(client: AsyncClient) -> bool:
    return (await client.inflight()).total == 0


async def main(size: Size) -> bool:
    """Print the table, and return whether each row is within two percent."""
    made = {name: new_key(name, KeyRole.CLIENT, weight=weight) for name, weight in WEIGHTS.items()}
    made["ops"] = new_key("ops", KeyRole.OPERATOR)
    keys, lines = {name: key for name, (key, _) in made.items()}, ",".join(kept.line for _, kept in made.values())
    print("| calls | tokens, premium | tokens, regular | requests | ratio |\n|---|---:|---:|---:|---:|")
    is_fair = True
    with open_redis(None) as url:
        for row in ROWS:
            shares = await measure(row, size, url, keys, lines)
            is_fair &= 3.92 <= shares.ratio <= 4.08
            note = f", at {shares.starved} starts an owner had nothing waiting" if shares.starved else ""
            note += f", {shares.failed} did not complete" if shares.failed else ""
            print(
                f"| {row.name} | {shares.tokens['premium']:,} | {shares.tokens['regular']:,} "
                f"| {shares.requests['premium']}:{shares.requests['regular']}{note} | {shares.ratio:.3f} |",
                flush=True,
            )
    return is_fair


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=500, help="how many requests each row counts")
    parser.add_argument("--callers", type=int, default=64, help="how many requests each owner has inflight")
    parser.add_argument("--shards", type=int, default=1)
    raise SystemExit(0 if asyncio.run(main(Size(**vars(parser.parse_args())))) else 1)
