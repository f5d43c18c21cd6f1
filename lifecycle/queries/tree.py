"""Show the tree of a request: the requests that led to it, itself, and what it has started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from lifecycle.aio import tasks
from lifecycle.store.request_trees import DEPTH_LIMIT
from lifecycle.store.transitions import Store
from lifecycle.types import RequestRecord

NODES_LIMIT = 200  # of one tree
CHILDREN_SHOWN = 100  # of one request, the oldest


class Node(NamedTuple):
    """One request of a tree; `depth` counts from 0 at the first one."""

    record: RequestRecord
    depth: int

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the HTTP API shows."""
        record = self.record
        return {
            "id": record.id,
            "parent": record.parent,
            "depth": self.depth,
            "model": record.model,
            "endpoint": record.endpoint,
            "status": record.status.value,
            "error_type": record.error_type,
            "cancel_requested_at": record.cancel_requested_at,
            "cancelled_by": record.cancelled_by,
            "created_at": record.created_at,
            "finished_at": record.finished_at,
        }


class Tree(NamedTuple):
    """The tree of a request: each one comes before what it has started. `has_more`: some are left out."""

    nodes: list[Node]
    has_more: bool

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /v1/requests/{id}/tree`."""
        return {"object": "list", "data": [node.to_json() for node in self.nodes], "has_more": self.has_more}


def everything(_: str | None) -> bool:
    """Show the requests of all owners."""
    return True


async def read(store: Store, rid: str, may_see: Callable[[str | None], bool] = everything) -> Tree | None:
    """Return the tree of a request, or None when it is unknown; what has expired is left out, and so is what it led to.

    `may_see` tells whether the requests of an owner are shown. Raises StoreUnavailable.
    """
    record = await store.read(rid, retry_for_secs=0.3)
    if record is None or not may_see(record.owner):
        return None
    above = await _ancestors(store, record, may_see)
    nodes = [Node(ancestor, depth) for depth, ancestor in enumerate(above)]
    has_more = await _add(store, Node(record, len(above)), nodes, may_see)
    return Tree(nodes, has_more)


async def _ancestors(store: Store, record: RequestRecord, may_see: Callable[[str | None], bool]) -> list[RequestRecord]:
    """Return the requests that led to this one, the first of them first."""
    found: list[RequestRecord] = []
    while record.parent and len(found) < DEPTH_LIMIT:
        parent = await store.read(record.parent, retry_for_secs=0.3)
        if parent is None or parent.created_at > record.created_at or not may_see(parent.owner):
            break
        found.insert(0, parent)
        record = parent
    return found


async def _add(store: Store, node: Node, nodes: list[Node], may_see: Callable[[str | None], bool]) -> bool:
    """Add a request and all that it has started. Return whether some are left out."""
    nodes.append(node)
    if len(nodes) >= NODES_LIMIT:
        return True
    listed = await store.children_of(node.record.id, CHILDREN_SHOWN + 1)
    has_more = len(listed) > CHILDREN_SHOWN
    shown = {above.record.id for above in nodes}  # whose ids may be those of expired requests, which led to others
    for child in await children(store, node.record.id, [rid for rid, _ in listed[:CHILDREN_SHOWN] if rid not in shown]):
        if not may_see(child.owner):
            continue
        if len(nodes) >= NODES_LIMIT:
            return True
        has_more |= await _add(store, Node(child, node.depth + 1), nodes, may_see)
    return has_more


async def children(store: Store, parent: str, rids: list[str]) -> list[RequestRecord]:
    """Return those of these requests that are known and that the parent has started. Raises StoreUnavailable."""
    records = await asyncio.gather(*(store.read(rid, retry_for_secs=0.3) for rid in rids))
    tasks.check_cancelled()
    return [record for record in records if record is not None and record.parent == parent]
