"""What a viewer is sent: a whole picture first, then only what has changed since the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

Table = Mapping[str, Mapping[str, Any]]  # id → row; a row has its id in it


@dataclass(frozen=True)
class Picture:
    """`facts` are part of every event, `history` of a snapshot only, `tables` are sent as changes.

    Each form is encoded once, however many are sent it.
    """

    version: int
    facts: Mapping[str, Any]
    tables: Mapping[str, Table]
    before: Mapping[str, Table] = field(default_factory=dict)  # the tables of the version before
    history: Sequence[Any] = ()

    @cached_property
    def snapshot(self) -> bytes:
        tables = {name: {"set": list(table.values()), "gone": []} for name, table in self.tables.items()}
        return orjson.dumps({"kind": "snapshot", **self.facts, "history": self.history, **tables}, default=list)

    @cached_property
    def delta(self) -> bytes:
        tables = {name: changes(self.before.get(name, {}), table) for name, table in self.tables.items()}
        return orjson.dumps({"kind": "delta", **self.facts, **tables}, default=list)

    def since(self, seen: int) -> bytes:
        """What brings a viewer from the version it has seen to this one; who is further behind begins anew."""
        return self.delta if seen == self.version - 1 and seen > 0 else self.snapshot


def changes(before: Table, now: Table) -> dict[str, Any]:
    """`set`: rows with their id and what is new of them; `gone`: ids."""
    changed = []
    for name, row in now.items():
        old = before.get(name, {})
        new = {key: value for key, value in row.items() if key not in old or old[key] != value}
        if new:
            changed.append({"id": name} | new)
    return {"set": changed, "gone": [name for name in before if name not in now]}
