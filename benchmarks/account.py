"""What a run has cost: CPU time and memory of each part from /proc, and Redis's own account of its work."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

_TICK_SECS = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME = 11, 12  # of /proc/<pid>/stat, counted behind the command's name


def cpu_secs(pid: int) -> float:
    """User and system time of a process, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK_SECS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Moment:
    """The accounts at one moment."""

    at_ns: int
    cpu_secs: Mapping[str, float]  # by part
    calls: Mapping[str, int]  # by Redis command, those inside scripts included
    redis_bytes: int  # in and out


@dataclass(frozen=True, slots=True)
class Bill:
    """What happened between two moments."""

    elapsed_secs: float
    cpu_secs: dict[str, float]
    calls: dict[str, int]
    redis_bytes: int

    @classmethod
    def between(cls, before: Moment, after: Moment) -> Bill:
        calls = {name: count - before.calls.get(name, 0) for name, count in after.calls.items()}
        return cls(
            (after.at_ns - before.at_ns) / 1e9,
            {part: secs - before.cpu_secs[part] for part, secs in after.cpu_secs.items()},
            {name: count for name, count in sorted(calls.items(), key=lambda c: -c[1]) if count and name != "info"},
            after.redis_bytes - before.redis_bytes,
        )

    def per_token(self, tokens: float) -> dict[str, float]:
        figures = {f"{part}_cpu_us_per_token": secs * 1e6 / tokens for part, secs in self.cpu_secs.items()}
        figures["redis_scripts_per_token"] = self.calls.get("evalsha", 0) / tokens
        figures["redis_commands_per_token"] = sum(self.calls.values()) / tokens
        figures["redis_bytes_per_token"] = self.redis_bytes / tokens
        return figures


class Accountant:
    """Reads the accounts of a running system. Redis itself is the part `redis`."""

    def __init__(self, pids: Mapping[str, Sequence[int]], redis_url: str) -> None:
        self._pids = pids
        self._redis = Redis.from_url(redis_url)

    def now(self) -> Moment:
        cpu = {part: sum(map(cpu_secs, pids)) for part, pids in self._pids.items()}
        info = self._info("cpu")
        cpu["redis"] = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        stats = self._info("stats")
        calls = {
            name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in self._info("commandstats").items()
        }
        traffic = int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])
        return Moment(time.monotonic_ns(), cpu, calls, traffic)

    def resident_bytes(self) -> dict[str, int]:
        sizes = {part: sum(map(resident_bytes, pids)) for part, pids in self._pids.items()}
        return sizes | {"redis": int(self._info("memory")["used_memory"])}

    def close(self) -> None:
        self._redis.close()

    def _info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self._redis.info(section)
        return found
