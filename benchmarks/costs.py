"""Calculate the cost model of docs/performance.md: the load of a core by a run's figures, and of larger clusters.

The model divides and multiplies CPU times only: no queueing, no network, no second machine. It shows where the limit
lies, and not the latencies near the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from benchmarks.report import number
from benchmarks.tables import TEXT_WIDTH

_PARTS = ("frontend", "worker", "redis")
_TOKEN_LOADS = ("paced-200", "paced-800", "paced-2000", "unpaced-256")
_TOKENS_OF_A_REQUEST = 200  # of the request that the clusters on paper serve
_USED = 0.6  # of a core, so that a burst finds room
_IDLE_REPLICAS = 10  # of the workload `idle`
_REPLICAS = (10, 100, 1_000)  # half frontends, half workers
_SHARDS = 16

Run = Mapping[str, Any]


def markdown(run: Run) -> str:
    """Return the section, or an empty text if the run lacks figures that the model needs."""
    costs = [(load, cost) for load in _TOKEN_LOADS if (cost := _costs(run, load, "token")) is not None]
    request = _costs(run, "short-32", "request")
    if not costs or request is None:
        return ""
    return "\n\n".join([_of_a_core(costs, request), _on_paper(run, dict(costs), request)])


def _of_a_core(costs: list[tuple[str, dict[str, float]]], request: dict[str, float]) -> str:
    lines = [
        "### What one core carries",
        "",
        "CPU-µs by part, and the tokens (or requests) a second at which one core of it is full.",
        "",
        "| load | frontend | worker (the engine included) | Redis |",
        "|---|---:|---:|---:|",
    ]
    for load, cost in costs:
        cells = [f"{number(cost[part])} µs: {_thousands(1e6 / cost[part])} tokens/s" for part in _PARTS]
        lines.append(f"| a token at `{load}` | {' | '.join(cells)} |")
    cells = [f"{number(request[part])} µs: {_thousands(1e6 / request[part])} requests/s" for part in _PARTS]
    lines.append(f"| a request of one token (`short-32`) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _on_paper(run: Run, costs: Mapping[str, dict[str, float]], request: dict[str, float]) -> str:
    """Return the estimate for larger clusters, with each replica and each Redis server on a core of its own."""
    token = costs.get("paced-2000") or costs[next(iter(costs))]
    each = {part: token[part] + request[part] / _TOKENS_OF_A_REQUEST for part in _PARTS}
    # CPU-µs a second, for each replica
    heartbeat = _figure(run, "idle", "redis_cpu_ms_per_sec") * 1000 / _IDLE_REPLICAS
    frontend, worker, redis = (_thousands(_capacity(each[part])) for part in _PARTS)
    text = (
        f"Requests of {_TOKENS_OF_A_REQUEST} tokens at 20 tokens/s; every replica and every Redis server on a core of "
        f"its own and {_USED:.0%} full; half of the replicas are frontends. Then a frontend core carries {frontend} "
        f"tokens/s, a worker core {worker} (with an engine that costs as little as this one), a Redis core {redis}, "
        f"less {number(heartbeat)} CPU-µs a second for each replica's heartbeats."
    )
    lines = [
        "### On paper",
        "",
        fill(text, TEXT_WIDTH),
        "",
        "| replicas | carry, tokens/s | one Redis server | a Cluster: 16 shards on 16 primaries | the limit |",
        "|---:|---:|---:|---:|---|",
    ]
    for replicas in _REPLICAS:
        fleet = replicas / 2 * min(_capacity(each["frontend"]), _capacity(each["worker"]))
        left = max(0.0, _USED * 1e6 - replicas * heartbeat)
        one = left / each["redis"]
        # A heartbeat goes to each shard, whichever server it is on; a server with one shard has one each.
        cluster = _SHARDS * one
        limit = "the replicas" if fleet <= one else "one Redis; the replicas with the Cluster"
        if fleet > cluster:
            limit = "Redis, with the Cluster too"
        lines.append(f"| {replicas:,} | {_thousands(fleet)} | {_thousands(one)} | {_thousands(cluster)} | {limit} |")
    return "\n".join(lines)


def _capacity(cost_us: float) -> float:
    return _USED * 1e6 / cost_us


def _costs(run: Run, workload: str, unit: str) -> dict[str, float] | None:
    found = {part: _figure(run, workload, f"{part}_cpu_us_per_{unit}") for part in _PARTS}
    return found if all(found.values()) else None


def _figure(run: Run, workload: str, figure: str) -> float:
    by_system: Mapping[str, float] = run["figures"].get(workload, {}).get(figure, {})
    return by_system.get(run["systems"][0], 0.0)


def _thousands(value: float) -> str:
    """Return the number with two significant digits, which is all that the model justifies."""
    digits = max(0, len(str(int(value))) - 2)
    return f"{round(value, -digits):,.0f}"
