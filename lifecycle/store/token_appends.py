"""Append tokens to the streams of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from lifecycle.store.membership import fenced
from lifecycle.store.results import Append, Refusal
from lifecycle.store.runner import ScriptRunner, as_text


class TokenAppends(ScriptRunner):
    """The part of the Store that writes what engines yield."""

    async def append(self, shard: int, worker: str, batch: Sequence[Append]) -> list[tuple[Append, Refusal]]:
        """Append one flush of a worker: tokens of many requests of one shard. Return the ones that were refused.

        The whole flush is one atomic script. Each item is accepted or refused by itself, and the frames that its
        frontends get are published by the same script. The order of tokens is that of their numbers: Redis refuses a
        number that is not above the last one. A repeated item is accepted, but neither written nor published again. A
        refusal is final: `gone` (there is no stream, or it lacks the token `before`), `closed` (the request has ended
        or was killed) or `fenced` (the attempt is not this worker's any more, or Redis has lost its start). A full
        memory refuses nothing here: admission stops before.

        There is no `retry_for_secs`: the token writer repeats a flush itself, because tokens gather meanwhile. Raises
        Fenced when the worker has expired; nothing of the flush is written then.
        """
        args: list[Any] = [worker]
        for a in batch:
            args += (a.rid, f"{a.attempt}-{a.number}", a.tokens, a.mark)
        reply = await self._call("append", self._prefixes[shard], *args)
        if reply and reply[0] == b"fenced":
            raise fenced(worker)
        return [(batch[int(index)], cast(Refusal, as_text(why))) for index, why in reply]
