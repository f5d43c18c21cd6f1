"""Read and delete the content of a request: its body and its events. The record's `storage` decides about both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lifecycle.store.results import Content, Deletion, record_of
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Storage


class Contents(ScriptRunner):
    """The part of the Store that reads and deletes the content of requests.

    An owner's kept content is bounded in each shard by an equal part of `stored_bytes`: the request that ends puts the
    oldest content out, up to 32 in one script, and sweeps remove what is then still too much.
    """

    async def read_content(self, rid: str, *, retry_for_secs: float = 0.0) -> Content | None:
        """Return a request's record and body, or None when the request is unknown or has expired.

        The body is None when the content was deleted, was put out by newer content, or was not to be kept beyond the
        end; the events are then gone too, or will be soon. Record and body are read one after the other, so that a
        large body does not pass through a script. A body never changes.
        """
        record = record_of(await self._in_shard("read", rid, retry_for_secs))
        if record is None:
            return None
        body = None
        if record.storage != Storage.DELETED:
            body = await self.command("GET", f"{self.keys.prefix_of(rid)}body:{rid}", retry_for_secs=retry_for_secs)
        return Content(record, body)

    async def delete_content(self, rid: str, *, retry_for_secs: float = 0.0) -> Deletion | None:
        """Delete a request's body and events, or return None when the request is unknown or has expired.

        The record stays, with the storage `deleted`. A request that has not ended goes on, unless the caller cancels it
        too; its content is deleted in the script that ends it (`pending`). Readers that have not reached the end then
        end as `not_found`. A repetition changes nothing and returns the state that the request has then.
        """
        reply = await self._in_shard("delete_content", rid, retry_for_secs)
        record = record_of(reply[1]) if len(reply) > 1 else None
        return Deletion(cast(Any, as_text(reply[0])), record) if record else None

    async def find_items(self, item_ids: Sequence[str], *, retry_for_secs: float = 0.0) -> dict[str, str]:
        """Return for each of these ids of items the id of the kept request whose answer has it, if there is one.

        The content may have been removed since. Each shard is asked for all ids in one command.
        """
        found: dict[str, str] = {}
        for prefix in self.keys.prefixes if item_ids else ():
            names = [f"{prefix}item:{item_id}" for item_id in item_ids]
            replies = await self.command("MGET", *names, retry_for_secs=retry_for_secs)
            found |= {item_id: as_text(rid) for item_id, rid in zip(item_ids, replies, strict=True) if rid is not None}
        return found
