"""List the workloads by name. Each repeat of a workload gets a new system of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any

from benchmarks import latency, standing, traffic
from benchmarks.measurement import Effort, Measurement
from benchmarks.system import Bare, Layout, Lifecycle, System

Run = Callable[[System, Effort], Awaitable[Measurement]]
SizedRun = Callable[[System, Effort, int], Awaitable[Measurement]]


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    run: Run
    frontends: int = 1
    workers: int = 1
    only: str = ""  # the one system that can do it
    is_plain_stream: bool = False  # the bare server can do it too

    @property
    def layout(self) -> Layout:
        return Layout(self.frontends, self.workers)

    def suits(self, system: str) -> bool:
        return self.is_plain_stream if system == Bare.name else self.only in ("", system)


def _sized(name: str, run: SizedRun, *sizes: int, **more: Any) -> list[Workload]:
    """Return one for each size: `paced-200`. `more` are further fields of Workload."""

    async def capped(system: System, effort: Effort, size: int) -> Measurement:
        return await run(system, effort, min(size, effort.largest))

    return [Workload(f"{name}-{size}", partial(capped, size=size), **more) for size in sizes]


WORKLOADS = (
    *_sized("unpaced", traffic.unpaced, 1, 32, 256, 1_000, is_plain_stream=True),
    Workload("long-text", partial(traffic.long, text_field="content", prompt="unpaced"), only=Lifecycle.name),
    Workload("long-tools", partial(traffic.long, text_field="arguments", prompt="tools"), only=Lifecycle.name),
    *_sized("paced", traffic.paced, 10, 50, 200, 800, 2_000, is_plain_stream=True),
    *_sized("steps", traffic.steps, 32, 200, is_plain_stream=True),
    *_sized("unary", traffic.unary, 32),
    *_sized("short", traffic.short, 32, is_plain_stream=True),
    *_sized("one-token", traffic.one_token, 32, only=Lifecycle.name),
    *_sized("forward-base64", partial(traffic.forward, encoding="base64"), 32, only=Lifecycle.name),
    *_sized("forward-float", partial(traffic.forward, encoding="float"), 32, only=Lifecycle.name),
    Workload("first-token", traffic.first_token, is_plain_stream=True),
    Workload("cancel", latency.cancel, frontends=2),
    Workload("cancel-busy", latency.cancel_busy, frontends=2),
    *_sized("cancels-at-once", latency.cancels_at_once, 1_000, frontends=2),
    Workload("disconnect", latency.disconnect),
    Workload("disconnect-slow", latency.disconnect_slow),
    Workload("disconnect-fast", latency.disconnect_fast),
    Workload("disconnect-busy", latency.disconnect_busy),
    Workload("resume", traffic.resume, only=Lifecycle.name),
    *_sized("readers", traffic.readers, 50, only=Lifecycle.name),
    *_sized("memory", standing.memory, 500),
    Workload("idle", standing.idle, frontends=5, workers=5),
    *_sized("heartbeat", standing.heartbeat, 0, 10_000, only=Lifecycle.name),
    *_sized("questions", standing.questions, 10, 1_000, 100_000, only=Lifecycle.name),
)


def chosen(patterns: list[str]) -> list[Workload]:
    """Those whose names match one of the patterns (`paced-200`, `paced-*`); all where there are none."""
    return [w for w in WORKLOADS if not patterns or any(fnmatch(w.name, pattern) for pattern in patterns)]
