"""Requests that other requests have started: the scripts that connect a child to its parent, in whatever shards.

What must not be lost is in the child's shard, written by the script that admits the child: that its parent is still to
be looked at. The parent's shard only has a list of its children, which bounds their number and is displayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import orjson

from lifecycle.store.new_request import Parent
from lifecycle.store.runner import ScriptRunner, as_text

CHILDREN_LIMIT = 1000  # of one request, without those that have ended
DEPTH_LIMIT = 16  # levels of a tree
CLAIM_LIMIT = 100  # children that one call claims

ParentState = Literal["live", "stop", "over", "cancelled", "failed", "lost"]


class Child(NamedTuple):
    """A request that ends with its parent; `parent_since` is when the parent was created."""

    rid: str
    parent: str
    parent_since: str


class NotedChild(NamedTuple):
    """Tell what came of noting a child; `parent` is given when the child may be admitted.

    `refused` is `unknown`, `ended`, `deep` or `full`, and then `oldest` are the first of the parent's children.
    """

    parent: Parent | None
    refused: str = ""
    oldest: Sequence[str] = ()


class ClaimedChildren(NamedTuple):
    """Children that were claimed. `more`: further ones are due."""

    children: list[Child]
    more: bool


class RequestTrees(ScriptRunner):
    """The part of the Store that knows parents and children. Every method may raise StoreUnavailable."""

    async def note_child(self, parent: str, child: str, owner: str, *, retry_for_secs: float = 0.3) -> NotedChild:
        """Examine the parent of a request that is to be admitted, and note the child with it.

        `owner` is whose the parent must be, '' for anybody's. It may be repeated. A child that is not admitted then
        stays in the list until it is forgotten, which nothing but the limit and displays can notice.
        """
        kept_ms = int(self.settings.retention_secs * 1000)
        reply = await self._in_shard(
            "note_child", parent, retry_for_secs, child, owner, CHILDREN_LIMIT, DEPTH_LIMIT, kept_ms
        )
        what = as_text(reply[0])
        if what != "noted":
            return NotedChild(None, what, [as_text(part) for part in reply[1:]])
        return NotedChild(Parent(parent, as_text(reply[1]), int(reply[2])))

    async def forget_children(self, parent: str, children: Sequence[str]) -> None:
        """Remove children from their parent's list. It may be repeated."""
        await self.command("ZREM", self.keys.prefix_of(parent) + "children:" + parent, *children)

    async def children_of(self, parent: str, limit: int) -> list[tuple[str, float]]:
        """Return the ids in the list of a request's children, each with when it was started, the oldest first."""
        key = self.keys.prefix_of(parent) + "children:" + parent
        flat = await self.command("ZRANGE", key, 0, limit - 1, "WITHSCORES", retry_for_secs=0.3)
        return [(as_text(rid), float(at)) for rid, at in zip(flat[::2], flat[1::2], strict=True)]

    async def parent_states(self, shard: int, parents: Sequence[tuple[str, str]]) -> list[ParentState]:
        """Return what has become of requests of one shard, each given by its id and when it was created."""
        reply = await self._call("parents", self._prefixes[shard], orjson.dumps(list(parents)))
        return [cast(ParentState, as_text(state)) for state in reply]

    async def claim_children(self, shard: int, check_secs: float) -> ClaimedChildren:
        """Return children of a shard whose parents are to be looked at; it is their turn again after `check_secs`."""
        more, *children = await self._call("claim_children", self._prefixes[shard], check_secs, CLAIM_LIMIT)
        return ClaimedChildren([Child(*map(as_text, child)) for child in children], bool(more))

    async def release_children(self, shard: int, rids: Sequence[str]) -> None:
        """Let children of one shard go on whatever becomes of their parents, which have completed."""
        await self.command("ZREM", self._prefixes[shard] + "with_parent", *rids)
