"""Accept requests that run in the process of their frontend."""

from __future__ import annotations

from typing import Literal

from lifecycle.ids import new_start_nonce
from lifecycle.store.new_request import NewRequest
from lifecycle.store.results import Start
from lifecycle.store.runner import ScriptRunner, as_text


class LocalStarts(ScriptRunner):
    """The part of the Store that admits and starts a request in one step."""

    async def track(self, request: NewRequest, *, retry_for_secs: float = 0.3) -> Start | Literal["exists", "fenced"]:
        """Write the record of a request that runs here, count it as inflight of its frontend, and begin its attempt.

        The frontend is its worker too: it appends, confirms cancels and finishes under the frontend's id. Nobody else
        can run the request, so it fails as `worker_lost` when the frontend expires. What concerns queues, bodies,
        content and quotas in `request` is not used.

        A repetition with the same nonce returns the same Start. A request is refused without any write as `exists`, or
        as `fenced` when the frontend has expired. Redis refuses it, as StoreUnavailable, when its memory is full.
        """
        asked = request.asked
        reply = await self._in_shard(
            "track",
            asked.rid,
            retry_for_secs,
            request.nonce,
            new_start_nonce(),
            *asked.labels,
            request.frontend,
            *request.record_fields(),
        )
        what = as_text(reply[0])
        if what != "run":
            return "exists" if what == "exists" else "fenced"
        return Start(
            attempt=1,
            base=0,
            body=b"{}",
            cancel_mode="",
            traceparent=request.traceparent,
            created_at=float(reply[1]),
            endpoint=asked.labels.endpoint,
            owner=asked.owner,
            nonce=as_text(reply[2]),
            length=1,  # the entry that begins the attempt
        )
