"""Write to Redis as replicas do, for tests of other replicas' reactions."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from lifecycle.ids import new_nonce
from lifecycle.store.results import Append
from lifecycle.store.transitions import Store
from lifecycle.types import Endpoint, Labels, OnDisconnect, RequestType
from tests.admitting import new_request
from tests.known_faults.core.replicas import BODY, MODEL

_LABELS = Labels(MODEL, Endpoint.CHAT_COMPLETIONS, RequestType.STREAM)


async def admit(store: Store, rid: str, frontend: str, *, deadline_secs: float = 0.0) -> None:
    """Queue a request for MODEL that outlives its connection, as this frontend."""
    new = new_request(
        rid, new_nonce(), _LABELS, frontend, BODY, OnDisconnect.CONTINUE.value, deadline_secs=deadline_secs
    )
    admission = await store.admit(new)
    assert admission.outcome == "admitted"


async def start(store: Store, rid: str, worker: str) -> None:
    """Take the next request of this request's shard from the queue, which must be this one, and start it."""
    taken = await store.take(store.keys.shard_of(rid), worker, 1, "nonce-01", [MODEL], 1)
    assert taken is not None
    assert [run.rid for run in taken.runs] == [rid]


async def append(store: Store, rid: str, worker: str, texts: Sequence[str]) -> None:
    """Append the first tokens of the first attempt."""
    first = Append(rid, 1, len(texts), orjson.dumps(list(texts)), True)
    assert not await store.append(store.keys.shard_of(rid), worker, [first])
