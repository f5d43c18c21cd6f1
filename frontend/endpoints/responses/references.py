"""Put items of stored responses in the place of references to them (`item_reference`) in the input of a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from frontend.endpoints.endpoint import Call, MaySee
from frontend.endpoints.responses.error import check_size
from frontend.endpoints.responses.history import read_response
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import is_request_id
from lifecycle.store.transitions import Store
from lifecycle.store.worker_roster import NATIVE_ONLY
from lifecycle.translation.responses_support import item_type, untranslatable
from lifecycle.types import Endpoint, ErrorType, Storage

MAX_REFERENCES = 1000
_RETRY_SECS = 0.3
_KEPT = (Storage.KEPT, Storage.BACKGROUND)


async def with_referenced_items(call: Call, store: Store, may_see: MaySee, limit_bytes: int) -> Call:
    """Return the call with the items themselves, where its input refers to items of the output of kept responses.

    A reference to another item stays, for an engine that serves responses itself and may know it. A call without
    references is returned as it is.

    Raises ApiError: 400 when there are more than MAX_REFERENCES, 413 when the body becomes larger than `limit_bytes`.
    Raises StoreUnavailable.
    """
    given = call.body.get("input")
    ids = list(dict.fromkeys(_references(given))) if isinstance(given, list) else []
    if not isinstance(given, list) or not ids:
        return call
    if len(ids) > MAX_REFERENCES:
        message = f"'input' refers to {len(ids)} items, and the limit is {MAX_REFERENCES}; send the items themselves"
        raise ApiError(ErrorType.VALIDATION, message, code="too_many_references", param="input")
    items = await _read_items(ids, store, may_see)
    resolved = [items.get(item["id"], item) if item_type(item) == "item_reference" else item for item in given]
    body = call.body | {"input": resolved}
    check_size(body, limit_bytes, "the items that it refers to", "send only the items that are needed", "input")
    others = tuple(name for name in call.gated if not name.startswith(f"{NATIVE_ONLY}input["))
    return call._replace(
        body=body, gated=(*others, *(NATIVE_ONLY + path for path in untranslatable({"input": resolved})))
    )


def _references(items: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Yield the ids that an input refers to, of those that can lead to an item."""
    for item in items:
        item_id = item.get("id") if item_type(item) == "item_reference" else None
        if isinstance(item_id, str) and is_request_id(item_id):
            yield item_id


async def _read_items(ids: list[str], store: Store, may_see: MaySee) -> dict[str, dict[str, Any]]:
    """Return the items with these ids that the caller may see. Of each response they are read once."""
    holders = await store.find_items(ids, retry_for_secs=_RETRY_SECS)
    found: dict[str, dict[str, Any]] = {}
    for response_id in dict.fromkeys(holders.values()):
        read = await read_response(store, response_id)
        if read is None:
            continue
        record, response = read
        if record.endpoint == Endpoint.RESPONSES and record.storage in _KEPT and may_see(record.owner):
            found |= {item["id"]: item for item in response["output"] if "id" in item}
    return {item_id: found[item_id] for item_id in ids if item_id in found}
