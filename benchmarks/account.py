"""Measure a run's cost: CPU time and memory of each part from the kernel, and Redis's own statistics."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WHOLE_PROCESS = 2  # CPUCLOCK_SCHED: all threads of a process, those that have ended too
_ASKING = ("info", "command", "hello", "client|setinfo")
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT = 3, 4  # of the first line of /proc/stat
GENERATOR = "load"  # the one part that is no server


def cpu_ns(pid: int) -> int:
    """User and system time of a process, from its CPU clock (`clock_getcpuclockid`): to the nanosecond."""
    return time.clock_gettime_ns((~pid << 3) | _WHOLE_PROCESS)


def machine_cpu_ns() -> int:
    """Return the CPU time of all processes and the time that the hypervisor took, to a hundredth of a second."""
    with Path("/proc/stat").open() as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) * _TICK_NS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Moment:
    """The accounts at one moment."""

    at_ns: int
    cpu_ns: Mapping[str, int]  # by part
    machine_cpu_ns: int
    calls: Mapping[str, int]  # by Redis command, those inside scripts included
    redis_bytes: int  # in and out


@dataclass(frozen=True, slots=True)
class Bill:
    """The costs between two moments."""

    begins_ns: int
    ends_ns: int
    cpu_secs: dict[str, float]
    machine_cpu_secs: float
    calls: dict[str, int]
    redis_bytes: int

    @classmethod
    def between(cls, before: Moment, after: Moment) -> Bill:
        calls = {name: count - before.calls.get(name, 0) for name, count in after.calls.items()}
        return cls(
            before.at_ns,
            after.at_ns,
            {part: (ns - before.cpu_ns[part]) / 1e9 for part, ns in after.cpu_ns.items()},
            (after.machine_cpu_ns - before.machine_cpu_ns) / 1e9,
            {
                name: count
                for name, count in sorted(calls.items(), key=lambda c: -c[1])
                if count and name not in _ASKING
            },
            after.redis_bytes - before.redis_bytes,
        )

    @property
    def secs(self) -> float:
        return (self.ends_ns - self.begins_ns) / 1e9

    @property
    def servers_secs(self) -> float:
        """CPU time of all parts but the load generator."""
        return sum(secs for part, secs in self.cpu_secs.items() if part != GENERATOR)

    def per(self, unit: str, count: float) -> dict[str, float]:
        """Return the cost of one unit, of which there were `count`."""
        count = max(1.0, count)
        figures = {f"cpu_us_per_{unit}": self.servers_secs * 1e6 / count}
        figures |= {f"{part}_cpu_us_per_{unit}": secs * 1e6 / count for part, secs in self.cpu_secs.items()}
        figures[f"redis_commands_per_{unit}"] = sum(self.calls.values()) / count
        figures[f"redis_scripts_per_{unit}"] = self.calls.get("evalsha", 0) / count
        figures[f"redis_bytes_per_{unit}"] = self.redis_bytes / count
        return figures

    def cores(self) -> dict[str, float]:
        """Return the share of a core that each part has used, and the share of all other processes as noise."""
        used = {f"{part}_cores": secs / self.secs for part, secs in self.cpu_secs.items()}
        return used | {"others_cores": max(0.0, self.machine_cpu_secs / self.secs - sum(used.values()))}


class Accountant:
    """Reads the accounts of a running system. Redis itself is the part `redis`."""

    def __init__(self, pids: Mapping[str, Sequence[int]], redis_url: str) -> None:
        self._redis = Redis.from_url(redis_url)
        self._pids = {**pids, "redis": [int(self._info("server")["process_id"])]}

    def now(self) -> Moment:
        stats = self._info("stats")
        calls = {
            name.removeprefix("cmdstat_"): int(values["calls"]) for name, values in self._info("commandstats").items()
        }
        cpu = {part: sum(map(cpu_ns, pids)) for part, pids in self._pids.items()}
        return Moment(
            time.monotonic_ns(),
            cpu,
            machine_cpu_ns(),
            calls,
            int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"]),
        )

    def resident_bytes(self) -> dict[str, int]:
        """Return the resident memory of each part; for Redis, the memory that its data takes."""
        sizes = {part: sum(map(resident_bytes, pids)) for part, pids in self._pids.items()}
        return sizes | {"redis": int(self._info("memory")["used_memory"])}

    def close(self) -> None:
        self._redis.close()

    def _info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self._redis.info(section)
        return found
