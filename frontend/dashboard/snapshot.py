"""Represent one version of the dashboard's tables, and encode it as a whole or as changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

Table = Mapping[str, Mapping[str, Any]]  # rows by id; each row contains its id


@dataclass(frozen=True)
class Snapshot:
    """Hold one version of some tables.

    Every event carries the `facts`, only a full one the `history`; the `tables` are sent as changes. Both encodings
    are made once, for however many viewers.
    """

    version: int
    facts: Mapping[str, Any]
    tables: Mapping[str, Table]
    before: Mapping[str, Table] = field(default_factory=dict)  # the tables of the previous version
    history: Sequence[Any] = ()

    @cached_property
    def full(self) -> bytes:
        """Encode the whole snapshot as JSON."""
        tables = {name: {"set": list(table.values()), "gone": []} for name, table in self.tables.items()}
        return orjson.dumps({"kind": "snapshot", **self.facts, "history": self.history, **tables}, default=list)

    @cached_property
    def delta(self) -> bytes:
        """Encode the changes since the previous version as JSON."""
        tables = {name: changes(self.before.get(name, {}), table) for name, table in self.tables.items()}
        return orjson.dumps({"kind": "delta", **self.facts, **tables}, default=list)

    def since(self, seen: int) -> bytes:
        """Return what a viewer needs that has seen version `seen` (0: none): the changes of one version, or all."""
        return self.delta if seen == self.version - 1 and seen > 0 else self.full


def changes(before: Table, now: Table) -> dict[str, Any]:
    """Return `{"set": rows, "gone": ids}`; a row has its id and the fields that are new or different."""
    changed = []
    for name, row in now.items():
        old = before.get(name, {})
        new = {key: value for key, value in row.items() if key not in old or old[key] != value}
        if new:
            changed.append({"id": name} | new)
    return {"set": changed, "gone": [name for name in before if name not in now]}
