"""Connect the requests of one frontend to the requests that have started them.

What ends a parent also ends its children. The sweeps see to that: `lifecycle/replica/parent_checks.py`. A message of
the parent's end lets the frontend of a child look at once.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from lifecycle.aio import tasks
from lifecycle.aio.tasks import Spawn
from lifecycle.errors import StoreUnavailable
from lifecycle.replica.parent_checks import ParentChecks
from lifecycle.store.new_request import AdmissionRequest, Parent
from lifecycle.store.pubsub import Message, Subscription, Subscriptions
from lifecycle.store.request_trees import Child
from lifecycle.store.transitions import Store
from lifecycle.tracking.admission import ParentRefusal, RefusedParent

_TRIES = 3  # to make room among the children of a parent


class Parents:
    """Hold which requests of this frontend end with which parents."""

    def __init__(self, store: Store, subscriptions: Subscriptions, spawn: Spawn) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._spawn = spawn
        self._checks = ParentChecks(store)
        self._subscriptions_of: dict[str, Subscription] = {}  # by parent
        self._children: dict[str, dict[str, Child]] = {}  # by parent, by id
        self._parent_of: dict[str, str] = {}

    async def examine(self, admit: AdmissionRequest) -> Parent:
        """Examine the parent of a request that is being admitted.

        `forget` follows when it has ended, and `drop` when it is refused. Raises StoreUnavailable and RefusedParent.
        """
        if admit.parent == admit.rid:
            raise RefusedParent("no_parent", admit.parent)
        self._listen(admit.parent, admit.rid)
        for _ in range(_TRIES):
            noted = await self._store.note_child(admit.parent, admit.rid, admit.parent_owner)
            if noted.parent is not None:
                if noted.parent.since:
                    child = Child(admit.rid, admit.parent, noted.parent.since)
                    self._children[admit.parent][admit.rid] = child
                else:
                    self.forget(admit.rid)  # the parent has completed: it ends nothing any more
                return noted.parent
            if noted.refused != "full":
                break
            ended: list[str] = []
            await tasks.in_batches(partial(self._note_ended, ended), noted.oldest)
            if not ended:
                break
            await self._store.forget_children(admit.parent, ended)
        raise RefusedParent(_REFUSALS[noted.refused], admit.parent)

    async def _note_ended(self, ended: list[str], rid: str) -> None:
        record = await self._store.read(rid)
        if record is None or record.status.terminal:
            ended.append(rid)

    def _listen(self, parent: str, rid: str) -> None:
        """Be told of the parent's end from now on. The admission does not wait for that."""
        self._parent_of[rid] = parent
        is_first = parent not in self._children
        self._children.setdefault(parent, {})[rid] = Child(rid, parent, "")
        if is_first:
            self._spawn(self._subscribe(parent), "parent")

    async def _subscribe(self, parent: str) -> None:
        """Subscribe to the parent's channel, and look at what has happened before. Without it the sweeps do so."""
        with suppress(StoreUnavailable):
            check = partial(self._check, parent)
            channel = self._store.keys.channel(parent)
            subscription = await self._subscriptions.subscribe(channel, partial(self._on_message, parent), check)
            if parent in self._children and parent not in self._subscriptions_of:
                self._subscriptions_of[parent] = subscription
                check()
            else:  # its children have ended meanwhile
                self._subscriptions.unsubscribe(subscription)

    def drop(self, admit: AdmissionRequest) -> None:
        """Let go of a request that was refused, also in its parent's list of children."""
        self.forget(admit.rid)
        self._spawn(self._unlist(admit), "refused child")

    async def _unlist(self, admit: AdmissionRequest) -> None:
        """Remove a refused request from its parent's list, unless the id is that of a child which was admitted before.

        Raises StoreUnavailable.
        """
        if await self._store.read(admit.rid) is None:
            await self._store.forget_children(admit.parent, [admit.rid])

    def forget(self, rid: str) -> None:
        """Let go of a request that has ended here."""
        parent = self._parent_of.pop(rid, None)
        children = self._children.get(parent) if parent is not None else None
        if parent is None or children is None:
            return
        children.pop(rid, None)
        if not children:
            del self._children[parent]
            subscription = self._subscriptions_of.pop(parent, None)
            if subscription is not None:
                self._subscriptions.unsubscribe(subscription)

    def _on_message(self, parent: str, message: Message) -> None:
        if message["type"] in ("cancel", "terminal"):
            self._check(parent)

    def _check(self, parent: str) -> None:
        # One whose admission is not decided yet is looked at by the next sweep.
        children = [child for child in self._children.get(parent, {}).values() if child.parent_since]
        if children:
            self._spawn(self._checks.check(children), "children")


_REFUSALS: dict[str, ParentRefusal] = {
    "unknown": "no_parent",
    "ended": "parent_ended",
    "deep": "too_deep",
    "full": "too_many_children",
}
