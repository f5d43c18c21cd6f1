"""End requests, on behalf of their workers and their frontends, and after Redis has lost their starts."""

from __future__ import annotations

import orjson

from lifecycle.encoding import encode_json
from lifecycle.store.arguments import MESSAGE_CHARS, encode_detail
from lifecycle.store.results import Append, Ended, Outcome, StartedAttempt, ended_of
from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import ErrorDetail, reported_tokens


class Ends(ScriptRunner):
    """The part of the Store that ends requests, by transitions as `Store` describes them."""

    async def finish(
        self,
        rid: str,
        worker: str,
        attempt: int,
        outcome: Outcome,
        last: int,
        *,
        remainder: Append | None = None,
        nonce: str = "",
        length: int | None = None,
        retry_for_secs: float = 0.0,
    ) -> Ended:
        """End a running request as its worker reports it, with `last` tokens, and so confirm a pending cancel.

        `remainder` are the tokens up to `last` of which no append was confirmed. Those that the stream lacks are
        appended, so a finish may follow an append whose reply was lost: the script then asks for a shorter remainder,
        because Lua's JSON library would change some events. `last` counts events; the record's `output_tokens` is the
        number that `outcome.usage` reports, else that of the events which the engine produced. A pending kill takes
        effect in place of `outcome`; a pending stop ends it as `completed` with `finish_reason` `stop`.

        `nonce` is that of the attempt's start, and `length` how many entries the stream has without the remainder. A
        request is never `completed` when its stream has another length: Redis has lost entries from its middle.

        Returns `done`, or `already` when it had ended before, also by an earlier execution of this call. The request is
        not changed for `unknown`, `fenced` (the attempt is not this worker's) and `incomplete` (the stream ends before
        `last`, or lacks entries).
        """
        input_tokens = reported_tokens(outcome.usage, "prompt_tokens")
        output_tokens = reported_tokens(outcome.usage, "completion_tokens")
        if output_tokens is None and outcome.is_translated:
            output_tokens = outcome.content_events
        count = remainder.event_count if remainder else 0
        while True:
            reply = await self._in_shard(
                "finish",
                rid,
                retry_for_secs,
                worker,
                attempt,
                outcome.status,
                outcome.error_type,
                outcome.message[:MESSAGE_CHARS],
                outcome.finish_reason[:MESSAGE_CHARS],
                last,
                f"{attempt}-{remainder.number}" if remainder else "",
                last - count,
                remainder.tokens if remainder else "",
                int(remainder.first) if remainder else 0,
                "" if input_tokens is None else input_tokens,
                "" if output_tokens is None else output_tokens,
                outcome.content_events,
                outcome.produced_events,
                encode_json(outcome.usage) if outcome.usage else "",
                encode_detail(outcome.detail),
                self.settings.retention_secs,
                " ".join(outcome.item_ids),
                nonce,
                "" if length is None else length,
            )
            what = as_text(reply[0])
            if what == "again":
                continue
            if remainder is None or what != "overlap":
                return ended_of(reply)
            missing = orjson.loads(remainder.tokens)[int(reply[1]) - last :]
            count = len(missing)
            remainder = remainder._replace(tokens=orjson.dumps(missing), counted=count)
            length = None if length is None else length + 1  # the append whose reply was lost has added an entry

    async def fail(
        self,
        rid: str,
        error_type: str,
        message: str,
        *,
        seen: int | None = None,
        detail: ErrorDetail | None = None,
        only_queued: bool = False,
        retry_for_secs: float = 0.0,
    ) -> Ended:
        """End a request as failed, on behalf of its frontend. A worker that runs it is notified to kill it.

        A worker that can neither run nor hand on a queued request fails it too. `detail` has the parts of the error
        that the client gets beside the message. With `seen` it ends only if no token came after that number, and with
        `only_queued` only if it has not been started; else `moved` is returned. Returns `done`, or `already` when it
        had ended before, also by an earlier execution of this call. Nothing is written for `unknown`, `moved` and
        `killing` (a kill is pending, which the worker confirms).
        """
        reply = await self._in_shard(
            "fail",
            rid,
            retry_for_secs,
            error_type,
            message[:MESSAGE_CHARS],
            "" if seen is None else seen,
            encode_detail(detail),
            "1" if only_queued else "",
            self.settings.retention_secs,
        )
        return ended_of(reply)

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
