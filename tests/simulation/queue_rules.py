"""Check the queues: their counts for each owner, limits of owners, and the order in which a take starts requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tests.simulation.server.database import Database
from tests.simulation.server.values import Hash, SortedSet

Note = Callable[[str], None]


class Flow(NamedTuple):
    """One owner's requests for a model that wait in a level."""

    priority: bytes
    owner: bytes
    model: bytes
    rids: Sequence[bytes]

    def __str__(self) -> str:
        return f"the flow of {self.owner.decode()!r} for {self.model.decode()} at {self.priority.decode()}"


def flows(values: Mapping[bytes, Any], prefix: bytes) -> Iterator[Flow]:
    """Yield every flow of a shard."""
    begin = prefix + b"flow:"
    for key, members in values.items():
        if key.startswith(begin) and isinstance(members, SortedSet):
            priority, length, rest = key[len(begin) :].split(b"|", 2)
            yield Flow(priority, rest[: int(length)], rest[int(length) + 1 :], list(members.scores))


def check_counts(values: Mapping[bytes, Any], prefix: bytes, note: Note) -> None:
    """Compare what is counted as queued, by owner and in bytes, with what waits."""
    owners: Counter[tuple[bytes, bytes]] = Counter()
    sizes: Counter[bytes] = Counter()
    for flow in flows(values, prefix):
        owners[flow.model, flow.owner] += len(flow.rids)
        sizes[flow.model] += sum(len(values.get(prefix + b"body:" + rid, b"")) for rid in flow.rids)
    counted: Counter[tuple[bytes, bytes]] = Counter()
    begin = prefix + b"queued:"
    for key, numbers in values.items():
        if key.startswith(begin) and isinstance(numbers, Hash):
            counted.update({(key[len(begin) :], owner): int(number) for owner, number in numbers.items()})
    for model, owner in dict.fromkeys([*owners, *counted]):
        if owners[model, owner] != counted[model, owner]:
            what = f"{counted[model, owner]} queued of {owner.decode()!r} for {model.decode()}"
            note(f"{what} are counted, and {owners[model, owner]} wait")
    shown = {model: int(number) for model, number in values.get(prefix + b"queued_bytes", Hash()).items()}
    if shown != {model: size for model, size in sizes.items() if size}:
        note(f"{shown} bytes are counted as queued, and {dict(sizes)} wait")


def check_take(database: Database, prefix: bytes, runs: Sequence[Sequence[bytes]], note: Note) -> None:
    """Check that what a take has just started is better than what it has left: a lower priority comes first."""
    worst: dict[bytes, int] = {}
    for run in runs:
        model, priority = run[1], int(run[13])
        if priority < worst.get(model, priority):
            note(f"{run[0].decode()} of priority {priority} was started behind one of {worst[model]}")
        worst[model] = max(priority, worst.get(model, priority))
    for flow in flows(database.values, prefix) if worst else ():
        if int(flow.priority) < worst.get(flow.model, int(flow.priority)):
            note(f"{flow} waits, and a take has started one of priority {worst[flow.model]}")
