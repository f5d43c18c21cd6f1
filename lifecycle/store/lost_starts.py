"""Report starts of attempts that Redis has lost."""

from __future__ import annotations

from lifecycle.store.arguments import MESSAGE_CHARS
from lifecycle.store.results import Ended, Outcome, StartedAttempt, ended_of
from lifecycle.store.runner import ScriptRunner


class LostStarts(ScriptRunner):
    """The part of the Store that ends requests whose starts were lost in a failover."""

    async def report_lost_start(
        self, rid: str, start: StartedAttempt, end: Outcome, *, retry_for_secs: float = 0.0
    ) -> Ended:
        """End a request with `end` if Redis has lost this start, of which the caller has produced or read tokens.

        Nothing is changed, and `known` returned, when Redis has the start or cannot tell. Returns `done`, or `already`
        when the request has ended before, also by an earlier execution of this call; the record then says that nobody
        may resume from a position in that attempt. A pending kill is left to its worker (`killing`). Returns `unknown`
        when there is no record.
        """
        reply = await self._in_shard(
            "lost_start",
            rid,
            retry_for_secs,
            start.attempt,
            start.nonce,
            end.status,
            end.error_type,
            end.message[:MESSAGE_CHARS],
            self.settings.retention_secs,
        )
        return ended_of(reply)
