"""Write the tables of docs/performance.md from a run's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from textwrap import fill
from typing import Any

from benchmarks.report import number, ratio

TABLE_WIDTH, TEXT_WIDTH = 140, 100  # the longest lines of the page, in characters

Figures = Mapping[str, Mapping[str, float]]  # of one workload: by figure and system


@dataclass(frozen=True, slots=True)
class Column:
    """A column for each system; with `compares`, another one with the factor by which the first system is better."""

    title: str
    figures: Sequence[str]  # in one cell
    compares: bool = False
    is_share: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    workloads: Sequence[str]  # patterns
    columns: Sequence[Column]


_PARTS = ("frontend", "worker", "redis")
_TOKEN_CPU = Column("CPU-µs per token", ("cpu_us_per_token",), compares=True)
_TOKEN_REDIS = ("redis_commands_per_token", "redis_bytes_per_token")
_DELAY = Column("yield to socket, ms", ("yield_to_socket_p50_ms", "yield_to_socket_p99_ms"))
_FIRST = Column("first token, ms", ("first_token_p50_ms", "first_token_p99_ms"))
_SPREAD = Column("p50 / p99, ms", ("p50_ms", "p99_ms"))

TABLES = (
    Table(
        "Unpaced: streams of 200 tokens, one after the other",
        ("unpaced-*",),
        (Column("tokens/s", ("tokens_per_sec",), compares=True), _TOKEN_CPU, _FIRST),
    ),
    Table(
        "Paced: streams of 20 tokens/s, and an engine that steps every 20 ms",
        ("paced-*", "steps-*"),
        (
            Column("delivered of what was due", ("delivered_of_due",), is_share=True),
            _TOKEN_CPU,
            _DELAY,
            Column("between two tokens, ms", ("inter_token_p50_ms", "inter_token_p99_ms")),
        ),
    ),
    Table(
        "The same loads: who uses the CPU time, what Redis is sent, what is in memory",
        ("unpaced-*", "paced-*", "steps-*"),
        (
            Column("CPU-µs per token: frontend, worker, Redis", tuple(f"{part}_cpu_us_per_token" for part in _PARTS)),
            Column("Redis: commands (those in scripts too), bytes per token", _TOKEN_REDIS),
            Column("resident MiB: frontend, worker, Redis", tuple(f"{part}_mib" for part in _PARTS)),
        ),
    ),
    Table(
        "Requests: 32 callers on kept connections, whole answers of 200 tokens and streams of one",
        ("unary-*", "short-*"),
        (
            Column("requests/s", ("requests_per_sec",), compares=True),
            Column("whole, ms", ("whole_p50_ms", "whole_p99_ms")),
            Column("CPU-µs per request", ("cpu_us_per_request",), compares=True),
            Column("frontend, worker, Redis", tuple(f"{part}_cpu_us_per_request" for part in _PARTS)),
        ),
    ),
    Table(
        "Forwards: embeddings of 1,024 numbers, as base64 and as numbers, beside answers of one token",
        ("one-token-*", "forward-*"),
        (
            Column("requests/s", ("requests_per_sec",)),
            Column("whole, ms", ("whole_p50_ms", "whole_p99_ms")),
            Column("CPU-µs per request", ("cpu_us_per_request",)),
            Column("frontend, worker, Redis", tuple(f"{part}_cpu_us_per_request" for part in _PARTS)),
        ),
    ),
    Table("First token of a stream on a kept connection, nothing else going on", ("first-token",), (_FIRST,)),
    Table(
        "From a client's act to the engine's stop",
        ("cancel", "cancel-busy", "disconnect*"),
        (_SPREAD, Column("longest, ms", ("max_ms",)), Column("trials", ("trials",))),
    ),
    Table(
        "Many cancels at once",
        ("cancels-at-once-*",),
        (
            Column("half of the engines stopped, ms", ("p50_ms",)),
            Column("all stopped, ms", ("all_ms",)),
            Column("all answered, ms", ("all_answered_ms",)),
        ),
    ),
    Table(
        "Resuming: a finished stream of 4,000 tokens, and 50 readers on one of 500 tokens/s",
        ("resume", "readers-*"),
        (
            Column("tokens/s delivered", ("tokens_per_sec",)),
            Column("whole, ms", ("whole_p50_ms", "whole_p99_ms")),
            _DELAY,
            _TOKEN_CPU,
        ),
    ),
    Table(
        "Questions about the cluster, with so many requests inflight",
        ("questions-*",),
        (
            Column("GET /v1/inflight, ms", ("inflight_p50_ms", "inflight_p99_ms")),
            Column("GET /v1/requests, ms", ("requests_p50_ms", "requests_p99_ms")),
            Column("GET /metrics, ms", ("metrics_p50_ms", "metrics_p99_ms")),
            Column("its KiB", ("metrics_kib",)),
        ),
    ),
    Table(
        "While nothing moves: five frontends and five workers; one of each with so many silent requests",
        ("idle", "heartbeat-*"),
        (
            Column("CPU-ms a second: frontends, workers, Redis", tuple(f"{part}_cpu_ms_per_sec" for part in _PARTS)),
            Column("Redis commands/s", ("redis_commands_per_sec",)),
        ),
    ),
    Table(
        "Memory of an idle open stream",
        ("memory-*",),
        (Column("KiB: frontend, worker, Redis", tuple(f"{part}_kib_per_stream" for part in _PARTS)),),
    ),
)


def markdown(run: Mapping[str, Any]) -> str:
    """Return all tables that have a row. A dash stands for a figure that a system lacks or that was not measured."""
    pieces = []
    for table in TABLES:
        rows = [name for name in run["figures"] if any(fnmatch(name, pattern) for pattern in table.workloads)]
        if rows:
            pieces.append(_table(table, rows, run))
    return "\n\n".join([_machine(run), *pieces])


def _machine(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    return fill(
        f"{run['at'][:10]}, {machine['cores']} cores, {machine['platform']}, Python {run['python']}, "
        f"{run['redis'].partition(' (')[0]}; medians of {run['count']}; pairs are p50 / p99. "
        f"Meanwhile others used at most {run['noise_cores']:.2f} of a core.",
        TEXT_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(table: Table, workloads: Sequence[str], run: Mapping[str, Any]) -> str:
    """Return the table below its title, divided into several if its lines would be too long."""
    systems = [s for s in run["systems"] if any(s in by for name in workloads for by in run["figures"][name].values())]
    parts: list[list[Column]] = [[]]
    for column in table.columns:
        if parts[-1] and any(len(line) > TABLE_WIDTH for line in _lines([*parts[-1], column], workloads, systems, run)):
            parts.append([])
        parts[-1].append(column)
    drawn = ("\n".join(_lines(columns, workloads, systems, run)) for columns in parts)
    return "\n\n".join([f"### {table.title}", *drawn])


def _lines(
    columns: Sequence[Column], workloads: Sequence[str], systems: Sequence[str], run: Mapping[str, Any]
) -> list[str]:
    """Return the lines of one table: its head, and a row for each workload."""
    titles = [title for column in columns for title in _titles(column, systems)]
    lines = [f"| workload | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for name in workloads:
        cells = [cell for column in columns for cell in _cells(column, systems, run["figures"][name])]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def _titles(column: Column, systems: Sequence[str]) -> list[str]:
    if len(systems) == 1:
        return [column.title]
    return [f"{column.title} – {systems[0]}", *systems[1:], *([""] if column.compares else [])]


def _cells(column: Column, systems: Sequence[str], figures: Figures) -> list[str]:
    cells = [_cell(column, system, figures) for system in systems]
    if column.compares and len(systems) > 1:
        figure = column.figures[0]
        values = [figures.get(figure, {}).get(system, 0.0) for system in systems[:2]]
        better = ratio(figure, values[0], values[1])
        cells.append("" if better is None else f"**× {number(better)}**")
    return cells


def _cell(column: Column, system: str, figures: Figures) -> str:
    values = [figures[figure][system] for figure in column.figures if system in figures.get(figure, {})]
    if not values:
        return "–"
    return " / ".join(f"{value:.0%}" if column.is_share else number(value) for value in values)
